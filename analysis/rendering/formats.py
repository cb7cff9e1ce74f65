"""Values as readers see them: rounding, signs and units are chosen here and nowhere else.

None, where a value may be missing, is written as an empty text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from analysis.stats.association import Association
from analysis.stats.estimates import Estimate
from configs.drawing.scene import true_minus


def format_signed(value: float | None, digits: int = 2) -> str:
    """A correlation or a difference, e.g. `−0.44`."""
    return "" if value is None else true_minus(f"{value:+.{digits}f}")


def format_interval(ends: tuple[float, float] | None, write: Callable[[float], str] = format_signed) -> str:
    """An interval whose ends are written by `write`, e.g. `[+0.12, +0.70]`."""
    return "" if ends is None else f"[{', '.join(map(write, ends))}]"


def format_estimate(e: Estimate) -> str:
    """Value and interval, e.g. `+0.44 [+0.12, +0.70]`."""
    return f"{format_signed(e.value)} {format_interval(e.ends)}".strip()


def format_estimate_of(e: Estimate) -> str:
    """Value, interval and number of points, e.g. `+0.44 [+0.12, +0.70], n 9`; the reason where there is no value."""
    return e.reason if e.value is None else f"{format_estimate(e)}, n {e.n}"


def format_p(p: float | None, digits: int = 2) -> str:
    """A p- or q-value."""
    return "" if p is None else f"{p:.{digits}g}" if p >= 1e-4 else f"{p:.0e}"


def format_p_within(association: Association) -> str:
    """The permutation p within web sources, e.g. `0.028 of 216 (least 0.0046)`."""
    p, least = association.p_within, association.smallest_p_within
    return "" if p is None else f"{p:.2g} of {association.arrangements_within:,} (least {least:.2g})"


def format_fact(value: str | int | float | None) -> str:
    """A setting or a count: 100864 is written 100,864."""
    if value is None:
        return ""
    return value if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def format_count(count: float) -> str:
    """A large number in short, e.g. `1.5B`, `200k`."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:g}{unit}"
    return f"{count:g}"


def format_points(share: float) -> str:
    """A difference of accuracies in percentage points; adding 0.0 avoids `-0.0`."""
    return f"{round(100 * share, 1) + 0.0:.1f}"


def format_points_interval(ends: tuple[float, float]) -> str:
    """An interval of differences of accuracies, in percentage points."""
    return format_interval(ends, format_points)


def format_per_cent(ends: tuple[float, float] | None) -> str:
    """An interval of shares, e.g. `[21, 79]`."""
    return format_interval(ends, lambda share: f"{100 * share:.0f}")


def join_names(names: Sequence[str]) -> str:
    return ", ".join(names)
