"""Which correlations change with scale: the answer against SciPy's Benjamini-Hochberg, and its words."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from panels import Cube, panel_of, random_cube
from scipy.stats import false_discovery_control

from analysis.panel.panel import Panel
from analysis.rendering import formats
from analysis.report.changes import SHOWN, ScaleChanges, scale_changes
from analysis.report.page import TEMPLATES
from analysis.stats.estimates import FALSE_DISCOVERIES
from analysis.tables.catalogue import build_tables
from configs.drawing import scene

SCALES = ("240m", "1b")


def answer(panel: Panel) -> ScaleChanges | None:
    made = {table.name: table for table in build_tables(panel, ["table5", "scale_differences"])}
    return scale_changes(made["scale_differences"], made["table5"])


def words(panel: Panel, changes: ScaleChanges | None) -> str:
    template = scene.environment(TEMPLATES).get_template("changes.html.j2")
    page = template.render(panel=panel, changes=changes, formats=formats, discovered=FALSE_DISCOVERIES)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page)).replace("&nbsp;", " ")


def turned(cube: Cube, changed: int) -> Cube:
    """The SFT scores of the first benchmarks follow those of PT at the small scale and oppose them at the large one."""
    random = np.random.default_rng(7)
    for (scale, stage, metric), values in cube.items():
        if stage == "SFT":
            sign = 1 if scale == SCALES[0] else -1
            early = cube[scale, "PT", metric][:, :changed]
            values[:, :changed] = sign * early + 0.001 * random.normal(size=early.shape)
    return cube


def test_where_nothing_changes_none_can_be_told() -> None:
    panel = panel_of(random_cube(3, scales=SCALES))
    found = answer(panel)
    assert found is not None and found.told == [] and found.asked == 40 and len(found.shown) == SHOWN
    # 2^9 exchanges, of which two are as extreme as the most extreme: 40 x 2/512 / k < 0.05 from k = 4 on.
    assert found.smallest_p == pytest.approx(2 / 512) and found.needed == 4
    said = words(panel, found)
    assert "None can be told" in said and "none of the 40 changes" in said.lower() and "at least 4 of the 40" in said
    assert f"{found.outside} of their intervals exclude 0" in said and "does not mean that none changes" in said


def test_changes_are_told_by_q_over_all_single_benchmarks_and_metrics() -> None:
    panel = panel_of(turned(random_cube(4, scales=SCALES), 4))
    found = answer(panel)
    assert found is not None
    (table,) = build_tables(panel, ["scale_differences"])
    single = [row for row in table.rows if row.keys[3] in panel.displays.values()]
    p = np.array([row.estimate.p for row in single], float)
    expected = dict(zip([row.keys[1::2] for row in single], false_discovery_control(p), strict=True))
    assert {(one.metric, one.name) for one in found.told} == {key for key, q in expected.items() if q < 0.05}
    first = {panel.displays[slug] for slug in panel.benchmarks[:4]}
    assert {(m, name) for m in ("accuracy", "confidence") for name in first} <= {(o.metric, o.name) for o in found.told}
    for one in found.told:
        assert one.q == pytest.approx(expected[one.metric, one.name])
        assert one.change.value == pytest.approx(one.large - one.small)
    said = words(panel, found)
    assert f"{len(found.told)} of 40 correlations change more than chance explains" in said and "None can" not in said
    assert all(panel.displays[slug] in said for slug in panel.benchmarks[:4])


def test_one_change_alone_is_too_few_for_nine_mixtures_and_is_not_told() -> None:
    panel = panel_of(turned(random_cube(5, scales=SCALES), 1))
    found = answer(panel)
    assert found is not None and found.told == []
    assert {one.name for one in found.shown[:2]} == {panel.displays[panel.benchmarks[0]]}
    assert all(one.change.p == found.smallest_p for one in found.shown[:2])


def test_means_are_named_after_the_benchmarks_that_they_are_of() -> None:
    cube = random_cube(6, scales=SCALES)
    cube["1b", "SFT", "accuracy"][:, 3] = 0.5
    found = answer(panel_of(cube))
    assert found is not None and found.asked == 39
    assert [(one.metric, one.name) for one in found.means] == [
        ("accuracy", "mean of 19 benchmarks"),
        ("confidence", "mean of 20 benchmarks"),
    ]
    assert all(one.q is None for one in found.means)


def test_without_a_second_scale_there_is_nothing_to_tell() -> None:
    one = panel_of(random_cube(0))
    assert answer(one) is None and "One scale was measured" in words(one, None)
    (table5,) = build_tables(one, ["table5"])
    assert scale_changes(None, table5) is None
    nothing = panel_of({key: np.full((9, 20), np.nan) for key in random_cube(0, scales=SCALES)})
    assert answer(nothing) is None and "No benchmark has a correlation at two scales" in words(nothing, None)


def test_a_change_that_rests_on_noise_is_marked(demo_panel: Panel) -> None:
    found = answer(demo_panel)
    assert found is not None
    (table5,) = build_tables(demo_panel, ["table5"])
    refused = {(row.keys[1], row.keys[3]) for row in table5.rows if row.no_claim}
    assert refused and [one.unreliable for one in found.shown] == [
        (one.metric, one.name) in refused for one in found.shown
    ]
    assert ("†" in words(demo_panel, found)) == any(one.unreliable for one in found.shown)


def test_a_change_is_marked_only_between_scales_of_which_one_makes_no_claim() -> None:
    scales = ("240m", "500m", "1b")
    panel = panel_of(random_cube(0, scales=scales))
    table5, table = build_tables(panel, ["table5", "scale_differences"])
    rows = [replace(row, no_claim="at chance" if row.keys[0] == "1b" else "") for row in table5.rows]
    found = scale_changes(table, replace(table5, rows=tuple(rows)))
    assert found is not None
    assert {one.scales for one in found.singles if one.unreliable} == {"240m to 1b", "500m to 1b"}
    assert {one.scales for one in found.singles if not one.unreliable} == {"240m to 500m"}
