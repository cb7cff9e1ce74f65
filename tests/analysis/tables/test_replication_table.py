"""The table on which the verdict "trust" rests: families of tests, and what is not tested."""

from __future__ import annotations

import numpy as np
from panels import panel_of

from analysis.panel.panel import STAGES, Panel
from analysis.protocols.replication import replicate
from analysis.stats.estimates import benjamini_bogomolov
from analysis.tables.replication import replication_table

SCALES = ("240m", "1b")


def seeded_panel(seeds: int) -> Panel:
    """Four benchmarks that differ by mixture, alike after both stages, and run noise that the stages share."""
    random = np.random.default_rng(2)
    mixtures = random.normal(size=(1, 9, 4))
    cubes = {}
    for scale in SCALES:
        luck = 0.3 * random.normal(size=(seeds, 9, 4))
        for stage in STAGES:
            cubes[scale, stage, "accuracy", "sum"] = 0.5 + 0.05 * (mixtures + luck)
    first = {key[:3]: cube[0] for key, cube in cubes.items()}
    return panel_of(first, values=cubes, seeds=tuple(range(seeds)))


def test_q_is_over_pairs_of_scores_and_their_benchmarks() -> None:
    panel = seeded_panel(3)
    table = replication_table(panel)
    assert len(table.rows) == 5 * 4
    families = [table.rows[start : start + 4] for start in range(0, 20, 4)]
    assert all(len({row.keys[:2] for row in family}) == 1 for family in families)
    q = benjamini_bogomolov([[row.estimate.p for row in family] for family in families])
    assert [[row.q for row in family] for family in families] == q
    (first, *_), sides = families[0], [panel.over_seeds("240m", stage) for stage in STAGES]
    assert first.estimate == replicate(*sides)[0].estimate
    assert first.q is not None and first.q < 0.05


def test_a_benchmark_at_chance_or_constant_is_not_tested() -> None:
    panel = seeded_panel(3)
    chance = {(scale, stage, "chance", ""): np.full((3, 9, 4), 0.25) for scale in SCALES for stage in STAGES}
    chance["1b", "SFT", "chance", ""][:, :, 1] = 0.5  # the second benchmark, after fine-tuning at 1b
    stderrs = {(scale, stage, "accuracy", "sum"): np.full((3, 9, 4), 0.02) for scale in SCALES for stage in STAGES}
    values = panel.values | chance
    values["240m", "PT", "accuracy", "sum"] = values["240m", "PT", "accuracy", "sum"].copy()
    values["240m", "PT", "accuracy", "sum"][:, :, 3] = 0.5
    first = {key[:3]: cube[0] for key, cube in panel.values.items()}
    table = replication_table(panel_of(first, values=values, stderrs=stderrs, seeds=(0, 1, 2)))
    tested = {row.keys for row in table.rows}
    second, fourth = (panel.displays[panel.benchmarks[b]] for b in (1, 3))
    left_out = {row.keys for row in replication_table(panel).rows} - tested
    assert left_out == {
        *((early, "1b SFT", second) for early in ("1b PT", "240m SFT", "240m PT")),
        *(("240m PT", late, fourth) for late in ("240m SFT", "1b PT", "1b SFT")),
    }


def test_a_second_seed_is_needed() -> None:
    assert replication_table(seeded_panel(1)).rows == ()
    assert len(replication_table(seeded_panel(2)).rows) == 20
