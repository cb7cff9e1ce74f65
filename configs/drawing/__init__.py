"""Figures as marks on a canvas, and their SVG: what every room that draws shares."""
