"""Seconds as people read them."""

from __future__ import annotations


def clock(seconds: float) -> str:
    """3725.2 -> 1:02:05; 75 -> 1:15."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
