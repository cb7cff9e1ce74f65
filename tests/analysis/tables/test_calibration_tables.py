"""Calibration methods side by side, and what a temperature does to alignment: each number against NumPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from panels import panel_of, random_cube

from analysis.figures.by_data import calibration_figures
from analysis.panel.panel import STAGES, Panel
from analysis.rendering.table import Row, Table
from analysis.rendering.writers import as_text
from analysis.stats.estimates import fisher_interval, paired_difference, t_interval
from analysis.tables.calibration import COMPARISONS, FURTHER, MEASURES, comparison_table
from analysis.tables.catalogue import build_tables
from configs.drawing.scene import Figure
from configs.load import BENCHMARKS, load_benchmark

FIXED = [load_benchmark(slug).fixed_candidates for slug in BENCHMARKS]


@pytest.fixture
def table(demo_tables: dict[str, Table]) -> Table:
    return demo_tables["calibration_methods"]


def at(table: Table, *keys: str) -> Row:
    (row,) = (row for row in table.rows if row.keys == keys)
    return row


def test_rows_are_every_measure_and_comparison_that_applies(demo_panel: Panel, table: Table) -> None:
    losses = {(measure, comparison) for measure in ("NLL", "Brier", "ECE") for comparison in COMPARISONS}
    found = [row.keys for row in table.rows]
    # A temperature changes no answer: accuracy is compared for the label prior alone.
    wanted = losses | {("accuracy", "label prior − as scored")}
    assert len(found) == len(set(found)) == 4 * len(wanted)
    assert set(found) == {(scale, stage, *rest) for scale in demo_panel.scales for stage in STAGES for rest in wanted}


@pytest.mark.parametrize("comparison", COMPARISONS)
def test_a_change_is_the_mean_over_benchmarks_of_means_over_mixtures(
    demo_panel: Panel, table: Table, comparison: str
) -> None:
    for measure, metric in MEASURES.items():
        if measure == "accuracy" and comparison != "label prior − as scored":
            continue
        after, before = (demo_panel.matrix("mini_m", "SFT", name.format(metric)) for name in COMPARISONS[comparison])
        kept = np.array(FIXED) if "prior" in comparison else np.ones(20, bool)
        each = (after - before)[:, kept].mean(axis=0)
        row = at(table, "mini_m", "SFT", measure, comparison)
        assert row.estimate.value == pytest.approx(each.mean()) and row.estimate.n == kept.sum()
        expected = paired_difference(each, "benchmarks")
        assert (row.estimate.low, row.estimate.high) == pytest.approx((expected.low, expected.high))
        assert row.estimate.p == pytest.approx(expected.p, abs=1e-9)
        values = table.values(row)
        assert values["before"] == pytest.approx(before[:, kept].mean())
        assert values["after"] == pytest.approx(after[:, kept].mean())
        better = int(((each if measure == "accuracy" else -each) > 1e-9).sum())
        assert values["better on"] == f"{better} of {kept.sum()}"


def test_mixtures_that_lack_one_side_are_left_out_of_both() -> None:
    random = np.random.default_rng(0)
    cube = random_cube(0) | {("240m", "PT", name): random.random((9, 20)) for name in ("nll", "nll_scaled")}
    cube["240m", "PT", "nll_scaled"][2, 5] = np.nan
    cube["240m", "PT", "nll"][:, 7] = np.nan
    row = at(comparison_table(panel_of(cube)), "240m", "PT", "NLL", "own temperature − as scored")
    difference = cube["240m", "PT", "nll_scaled"] - cube["240m", "PT", "nll"]
    each = [np.nanmean(difference[:, b]) for b in range(20) if b != 7]
    assert row.estimate.value == pytest.approx(np.mean(each)) and row.estimate.n == 19
    before = [
        np.nanmean(np.where(np.isnan(difference[:, b]), np.nan, cube["240m", "PT", "nll"][:, b])) for b in range(7)
    ]
    assert len(before) == 7 and table_before(row) == pytest.approx(
        np.mean([*before, *(np.mean(cube["240m", "PT", "nll"][:, b]) for b in range(8, 20))])
    )


def table_before(row: Row) -> float:
    return float(row.extra[0])


def test_nothing_measured_gives_no_row() -> None:
    assert comparison_table(panel_of(random_cube(0))).rows == ()


def test_files_have_every_method_of_every_benchmark(demo_panel: Panel, demo_tables: dict[str, Table]) -> None:
    table = demo_tables["calibration"]
    row = at(table, "mini_s", "PT", "NLI", "MNLI")
    values, b = table.values(row), demo_panel.benchmarks.index("mnli")
    for name, metric in FURTHER.items():
        assert values[name] == pytest.approx(demo_panel.matrix("mini_s", "PT", metric)[:, b].mean())
    assert table.values(at(table, "mini_s", "PT", "Commonsense", "PIQA"))["ECE, label prior"] is None


@pytest.mark.parametrize("name", ["table6", "table8", "table9"])
def test_alignment_after_a_temperature_stands_beside_the_plain_one(
    demo_panel: Panel, demo_tables: dict[str, Table], name: str
) -> None:
    """Against NumPy, mixture by mixture; the plain number, its p and q are those of a study without temperatures."""
    table = demo_tables[name]
    groups = {"table6": {"": range(9)}, "table8": {"DCLM": range(6, 9)}, "table9": {"35": range(1, 9, 3)}}[name]
    for group, mixtures in groups.items():
        accuracy, scaled = (
            demo_panel.matrix("mini_m", "SFT", metric)[:, demo_panel.members("Commonsense")]
            for metric in ("accuracy", "confidence_scaled")
        )
        expected = np.mean([np.corrcoef(accuracy[m], scaled[m])[0, 1] for m in mixtures])
        row = at(table, *filter(None, ("mini_m", "SFT", group, "Commonsense", "averaged")))
        after = table.values(row)["after temperature"]
        assert after.value == pytest.approx(expected) and after.n == 7
        assert after.ends == pytest.approx(fisher_interval(expected, 7))
        assert table.texts(row) == [f"{expected:+.2f} [{after.low:+.2f}, {after.high:+.2f}]".replace("-", "−")]
    unscaled = {key: values for key, values in demo_panel.values.items() if key[2] != "confidence_scaled"}
    (plain,) = build_tables(replace(demo_panel, values=unscaled), [name])
    for row, other in zip(table.rows, plain.rows, strict=True):
        assert row.estimate == other.estimate and (row.q, row.paper) == (other.q, other.paper)
        assert other.extra == (None,)
    assert "after temperature" not in as_text(plain).split("\n")[1] and "after temperature" in as_text(table)


def test_calibration_error_by_web_source_and_code_against_numpy(
    demo_panel: Panel, demo_tables: dict[str, Table], demo_figures: dict[str, Figure]
) -> None:
    table = demo_tables["calibration_by_data"]
    assert len(table.rows) == 2 * 2 * (3 + 3) * 5 and sum(row.brief for row in table.rows) == 24
    columns = {category: demo_panel.members(category) for category in demo_panel.categories} | {"all": list(range(20))}
    webs = {"RefinedWeb": [0, 1, 2], "FineWeb-Edu": [3, 4, 5], "DCLM": [6, 7, 8]}
    mixtures = webs | {"25": [0, 3, 6], "35": [1, 4, 7], "45": [2, 5, 8]}
    for row in table.rows:
        scale, stage, by, group, category = row.keys
        assert (group in webs) == (by == "web source")
        plain, scaled = (
            demo_panel.matrix(scale, stage, metric)[mixtures[group]][:, columns[category]].mean(axis=1)
            for metric in ("ece", "ece_scaled")
        )
        assert row.estimate.value == pytest.approx(plain.mean()) and row.estimate.n == 3
        assert row.estimate.ends == pytest.approx(t_interval(plain))
        after = table.values(row)["after own temperature"]
        assert after.value == pytest.approx(scaled.mean())
        assert table.texts(row)[0].startswith(f"{scaled.mean():.3f} [")
        figure = demo_figures["ece_by_web" if group in webs else "ece_by_code"].scene.svg()
        series = group if group in webs else f"{group} % code"
        assert f"{category}, {scale}, {stage}, {series}: ECE {plain.mean():+.2f}" in figure
    assert any("Stack-v2" in note for note in table.notes) and any("on one line" in note for note in table.notes)


def test_without_calibration_the_groups_are_named_and_empty_and_nothing_is_drawn() -> None:
    panel = panel_of(random_cube(0))
    (table,) = build_tables(panel, ["calibration_by_data"])
    assert table.rows and all(row.estimate.value is None for row in table.rows)
    assert calibration_figures(panel, table) == calibration_figures(panel, None) == {}
