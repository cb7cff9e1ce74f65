"""Tables and drawings as text, CSV, Markdown, LaTeX, SVG and PDF."""
