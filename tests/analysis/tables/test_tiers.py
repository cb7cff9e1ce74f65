"""Tiers: by hand, and the paper's rule on the paper's own numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from analysis.panel.panel import Panel
from analysis.paper import published as pub
from analysis.rendering.table import Table
from analysis.rendering.writers import format_verdict
from analysis.stats.estimates import Estimate, absent, fisher_interval
from analysis.tables.tiers import tier, tier_table


def r(value: float, n: int = 9) -> Estimate:
    low, high = fisher_interval(value, n)
    return Estimate(value, n, "mixtures", low=low, high=high)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([r(0.7), r(0.9)], ("highly reliable", "not settled")),
        ([r(0.95), r(0.99)], ("highly reliable", "highly reliable")),  # 0.95: from 0.77
        ([r(0.61), r(0.6)], ("between", "not settled")),
        ([r(0.99), r(0.29)], ("unreliable", "not settled")),
        ([r(0.99), r(-0.6)], ("unreliable", "unreliable")),  # -0.6: to 0.11
        ([r(0.7), r(0.7, n=3)], ("highly reliable", "")),
        ([r(0.7), absent("constant")], ("", "")),
        ([], ("", "")),
    ],
)
def test_by_hand(found: list[Estimate], expected: tuple[str, str]) -> None:
    assert tier(found) == expected


def test_the_papers_numbers_by_its_own_rule() -> None:
    """Of the four benchmarks that the text calls highly reliable its rule leaves two."""
    columns = [pub.estimates(*key) for key in pub.COLUMNS]
    found = {name: tier([column[name] for column in columns])[0] for name in columns[0]}
    assert {name for name, kind in found.items() if kind == "highly reliable"} == {"HellaSwag", "COPA"}
    assert {"WinoGrande", "MNLI", "WiC", "MultiRC"} < {name for name, kind in found.items() if kind == "unreliable"}


def test_table_of_a_study(demo_panel: Panel, demo_tables: dict[str, Table]) -> None:
    panel, table = demo_panel, demo_tables["tiers"]
    assert [row.keys[1] for row in table.rows] == [panel.displays[slug] for slug in panel.benchmarks]
    for b, row in enumerate(table.rows):
        each = [
            np.corrcoef(*(panel.matrix(scale, stage, metric)[:, b] for stage in ("PT", "SFT")))[0, 1]
            for metric in ("accuracy", "confidence")
            for scale in panel.scales
        ]
        assert row.estimate.value == pytest.approx(min(each)) and row.estimate.p is None
        assert row.extra[0] == (
            "highly reliable" if min(each) > 0.6 else "unreliable" if min(each) < 0.3 else "between"
        )
    assert {table.texts(row)[2] for row in table.rows} == {"highly reliable", "unreliable", ""}
    alone = tier_table(replace(panel, beside_paper=False, values={}))
    assert {format_verdict(row) for row in alone.rows} == {"missing: not measured everywhere"}
