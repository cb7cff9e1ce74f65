"""A page of marks that becomes SVG: the few shapes that figures of the report and of a pool need.

Positions are pixels; colours come from the classes of style.css, so one drawing serves light and dark pages.
Heatmap cells alone carry their own colour (cividis: its order survives colour blindness and grey print).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

WIDTH = 1110  # of a figure, in px
TEMPLATES = Path(__file__).parent
# Five points of cividis (Nunez, Anderton and Renslow, 2018), dark to light; between them colours are interpolated.
CIVIDIS = np.array([[0, 34, 78], [65, 77, 107], [124, 123, 120], [188, 175, 111], [254, 232, 56]], dtype=float)


@dataclass
class Scene:
    """Marks in drawing order on a canvas of `width` x `height` px."""

    width: float
    height: float
    label: str
    """Read out by screen readers."""
    marks: list[dict[str, Any]] = field(default_factory=list)

    def _add(self, kind: str, cls: str, tip: str, **place: Any) -> None:
        rounded = {k: _tenths(v) if isinstance(v, (int, float, np.number)) else v for k, v in place.items()}
        self.marks.append({"kind": kind, "cls": cls, "tip": true_minus(tip), **rounded})

    def line(self, x1: float, y1: float, x2: float, y2: float, cls: str = "axis", tip: str = "") -> None:
        self._add("line", cls, tip, x1=x1, y1=y1, x2=x2, y2=y2)

    def dot(self, x: float, y: float, r: float, cls: str, tip: str = "") -> None:
        self._add("dot", cls, tip, x=x, y=y, r=r)

    def diamond(self, x: float, y: float, r: float, cls: str, tip: str = "") -> None:
        corners = ((x, y - r), (x + r, y), (x, y + r), (x - r, y))
        self._add("polygon", cls, tip, points=" ".join(f"{a:.1f},{b:.1f}" for a, b in corners))

    def path(self, points: Iterable[tuple[float, float]], cls: str, tip: str = "") -> None:
        self._add("polyline", cls, tip, points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points))

    def rect(self, x: float, y: float, w: float, h: float, fill: str = "", cls: str = "", tip: str = "") -> None:
        self._add("rect", cls, tip, x=x, y=y, w=w, h=h, fill=fill)

    def text(
        self, x: float, y: float, words: object, cls: str = "", anchor: str = "start", fill: str = "", turn: float = 0
    ) -> None:
        self._add("text", cls, "", x=x, y=y, words=true_minus(str(words)), anchor=anchor, fill=fill, turn=turn)

    def value_axis(self, x: Axis, ticks: Sequence[float], top: float, bottom: float, *, signed: bool = False) -> None:
        """Vertical lines at `ticks` with their numbers below. signed: correlations and differences, zero marked."""
        for tick in ticks:
            self.line(x(tick), top, x(tick), bottom, "zero" if signed and tick == 0 else "grid")
            self.text(x(tick), bottom + 14, format_tick(tick) if signed else f"{tick:g}", "soft small", "middle")

    def unit_square(self, x: Axis, y: Axis, *, below: bool, beside: bool, tip: str = "") -> None:
        """A grid over [0, 1] twice, with its diagonal. below, beside: with numbers there; tip: of the diagonal."""
        for tick in (0, 0.5, 1):
            self.line(x(tick), y(0), x(tick), y(1), "grid")
            self.line(x(0), y(tick), x(1), y(tick), "grid")
            if below:
                self.text(x(tick), y(0) + 15, f"{tick:g}", "soft small", "middle")
            if beside:
                self.text(x(0) - 6, y(tick) + 4, f"{tick:g}", "soft small", "end")
        self.line(x(0), y(0), x(1), y(1), "dashed", tip)

    def svg(self, style: str = "") -> str:
        """The drawing as one <svg> element; `style` (CSS) makes it stand alone."""
        return environment().get_template("figure.svg.j2").render(scene=self, style=style).strip()


def true_minus(text: str) -> str:
    """Replace the hyphen before a number by a minus sign; hyphens in words and exponents stay."""
    return re.sub(r"(?<!\w)-(?=[\d.])", "−", text)


def format_tick(value: float) -> str:
    """A number on a signed axis, e.g. `+0.5`; zero has no sign."""
    return true_minus(f"{value:+g}") if value else "0"


def _tenths(value: float | np.number[Any]) -> float:
    """Rounded, and without a decimal where it has none: a page of figures is thousands of these."""
    rounded = round(float(value), 1)
    return int(rounded) if rounded.is_integer() else rounded


@dataclass(frozen=True)
class Figure:
    name: str
    title: str
    caption: str
    scene: Scene


@functools.cache
def environment(templates: Path = TEMPLATES) -> jinja2.Environment:
    """Renders the Jinja templates of a folder."""
    loader = jinja2.FileSystemLoader(templates)
    return jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )


def style() -> str:
    return (TEMPLATES / "style.css").read_text()


@dataclass(frozen=True)
class Axis:
    """Linear scale from data [low, high] to pixels [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def clip(self, value: float) -> float:
        """The pixel of a value or, outside the range, of its nearer end."""
        return self(min(max(value, self.low), self.high))

    def ticks(self, about: int = 5) -> list[float]:
        """Round numbers inside the range."""
        raw = (self.high - self.low) / about
        power = 10.0 ** np.floor(np.log10(raw))
        step = float(min((m * power for m in (1, 2, 2.5, 5, 10)), key=lambda s: abs(s - raw)))
        first = np.ceil(self.low / step - 1e-9)
        last = np.floor(self.high / step + 1e-9)
        # Rounding removes 0.30000000000000004; adding 0.0 turns -0.0 into 0.0.
        return [round(float(i * step), 10) + 0.0 for i in np.arange(first, last + 1)]


def sequential(share: float) -> tuple[str, str]:
    """(fill, text colour) of a value in [0, 1]."""
    place = min(max(share, 0.0), 1.0) * (len(CIVIDIS) - 1)
    below = min(int(place), len(CIVIDIS) - 2)
    rgb = CIVIDIS[below] + (place - below) * (CIVIDIS[below + 1] - CIVIDIS[below])
    light = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2] > 125
    return "#" + "".join(f"{round(c):02x}" for c in rgb), "#111" if light else "#fff"


def diverging(r: float) -> str:
    """Class of a correlation: blue for positive, red for negative, in four strengths of each."""
    strength = min(int(abs(r) * 4) + 1, 4)
    return f"{'pos' if r >= 0 else 'neg'}{strength}"
