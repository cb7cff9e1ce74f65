"""The report's sentences on DCLM and FineWeb-Edu, on accuracies that are known."""

from __future__ import annotations

import numpy as np
import pytest
from panels import panel_of, random_cube

from analysis.report.sources import source_answers
from analysis.tables.catalogue import build_tables


def answers(gaps: tuple[float, ...], spread: float, **change: object) -> list[str]:
    """gaps: DCLM less FineWeb-Edu in points, for Commonsense, Science, NLI and Semantic; spread over code shares."""
    cube = random_cube(0, scales=("240m", "1b"))
    panel = panel_of(cube)
    scores = np.full((9, 20), 0.5)
    for category, gap in zip(panel.categories, gaps, strict=True):
        for m in range(3):
            scores[6 + m, panel.members(category)] += (gap + spread * (m - 1)) / 100
    cube["1b", "SFT", "accuracy"] = scores
    (table,) = build_tables(panel_of(cube, **change), ["web_differences"])
    return list(source_answers(table))


@pytest.mark.parametrize(
    ("gaps", "spread", "matched", "settled"),
    [
        ((3.0, -0.5, -0.9, -4.0), 0.01, 3, 4),
        # t over three shares: the ends lie 2.48 times the spread from the mean.
        ((3.0, -0.5, -0.9, -4.0), 1.0, 3, 2),
        ((-1.2, -1.2, 0.0, 0.0), 5.0, 2, 0),
    ],
)
def test_a_match_is_at_most_a_point_below_and_the_interval_says_whether_that_is_settled(
    gaps: tuple[float, ...], spread: float, matched: int, settled: int
) -> None:
    numbers, verdict = answers(gaps, spread)
    assert numbers.startswith("DCLM less FineWeb-Edu at 1b after SFT")
    assert all(f" {gap:+.1f} [".replace("-", "−") in numbers for gap in gaps)
    assert f"in {matched} of 4 categories" in verdict and f"In {settled} of 4 the whole interval" in verdict


def test_without_both_sources_nothing_is_said() -> None:
    assert answers((0.0,) * 4, 0.0, design={}) == [] == list(source_answers(None))
