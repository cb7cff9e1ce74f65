"""Figures: what they show is what was measured, in the right place, and what was not measured is not drawn."""

from __future__ import annotations

import dataclasses
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from panels import panel_of, random_cube

from analysis.figures.__main__ import chosen_formats, main
from analysis.figures.by_data import bounds_of, web_figures
from analysis.figures.catalogue import TABLES, sections
from analysis.figures.intervals import cross_stage
from analysis.figures.matrices import matrix_figure
from analysis.figures.overview import accuracy_heatmap, alignment_scatter, seed_noise
from analysis.panel.panel import OWN_HUES, Panel
from analysis.paper.numbers import CATEGORIES
from analysis.rendering.pdf import light_style
from analysis.rendering.table import Row, Table
from analysis.stats.estimates import Estimate
from analysis.tables.catalogue import build_tables
from configs.drawing.scene import Figure, style
from configs.errors import ConfigError

SVG = "{http://www.w3.org/2000/svg}"


def tips(figure: Figure) -> list[str]:
    tree = ET.fromstring(figure.scene.svg())
    return [title.text or "" for title in tree.iter(f"{SVG}title")]


def test_every_figure_is_drawn_inside_its_canvas(demo_figures: dict[str, Figure]) -> None:
    numbers = {name for name in demo_figures if re.match(r"figure\d", name)}
    wanted = ("1", "3", "4a", "4b", "5", "6", "8", "9", "10", "13", "14", "15")
    by_source = {"12_mini_s", "12_mini_m", "13_dclm_refinedweb", "13_dclm_fineweb_edu"}
    assert numbers == {f"figure{number}" for number in (*wanted, *by_source)}
    assert {"cross_stage_accuracy", "cross_stage_confidence", "specifications", "accuracy", "seed_noise"} <= set(
        demo_figures
    )
    for name, figure in demo_figures.items():
        tree = ET.fromstring(figure.scene.svg("svg { color: red }"))
        assert figure.caption and tree.get("aria-label") == figure.scene.label, name
        for mark in tree.iter():
            for key in ("x", "x1", "x2", "cx"):
                assert -1 <= float(mark.get(key, 0)) <= figure.scene.width + 1, (name, mark.attrib)
            for key in ("y", "y1", "y2", "cy"):
                assert -1 <= float(mark.get(key, 0)) <= figure.scene.height + 1, (name, mark.attrib)


def test_rows_of_the_matrix_between_stages_are_pretraining(demo_panel: Panel, demo_figures: dict[str, Figure]) -> None:
    found = tips(demo_figures["figure10"])
    pt, sft = demo_panel.matrix("mini_s", "PT"), demo_panel.matrix("mini_s", "SFT")
    i, j = demo_panel.benchmarks.index("piqa"), demo_panel.benchmarks.index("sciq")
    for a, b, names in ((i, j, "PT PIQA with SFT SciQ"), (j, i, "PT SciQ with SFT PIQA")):
        r = np.corrcoef(pt[:, a], sft[:, b])[0, 1]
        assert f"{names}: r {r:+.2f}, n 9".replace("-", "−") in found
    assert len(found) == 2 * 20 * 20


def test_a_mark_has_its_number_its_interval_and_the_papers(
    demo_tables: dict[str, Table], demo_figures: dict[str, Figure]
) -> None:
    (row,) = (row for row in demo_tables["table6"].rows if row.keys == ("mini_m", "SFT", "Science", "averaged"))
    e = row.estimate
    wanted = f"Science, mini_m, SFT: {e.value:+.2f} [{e.low:+.2f}, {e.high:+.2f}], n 4; paper +0.83".replace("-", "−")
    assert tips(demo_figures["figure6"]).count(wanted) == 3  # the mark, its interval, the paper's diamond


def test_every_web_source_is_in_the_figures_by_web_source(
    demo_panel: Panel, demo_tables: dict[str, Table], demo_figures: dict[str, Figure]
) -> None:
    """Each source has its means, and each pair of sources its differences, with the numbers of the tables."""
    drawn = {name: tips(figure) for name, figure in demo_figures.items() if name.startswith(("figure12", "figure13"))}
    for row in demo_tables["web_means"].rows:
        quantity, scale, stage, category, web = row.keys
        place = f"{category}, {'accuracy, %' if quantity == 'accuracy' else quantity}, {stage}, {web}: "
        numbers = [tip for tip in drawn[f"figure12_{scale}"] if tip.startswith(place)]
        assert numbers and f"{row.estimate.value:+.2f} [".replace("-", "−") in numbers[0], row.keys
    webs = {design.web for design in demo_panel.design.values()}
    assert webs == {"RefinedWeb", "FineWeb-Edu", "DCLM"}
    files = {"DCLM − RefinedWeb": "13_dclm_refinedweb", "DCLM − FineWeb-Edu": "13_dclm_fineweb_edu"}
    for row in demo_tables["web_differences"].rows:
        quantity, scale, stage, category, pair = row.keys
        place = f"{category}, {'accuracy, pp' if quantity == 'accuracy' else quantity}, {stage}, {scale}: "
        numbers = [tip for tip in drawn[f"figure{files.get(pair, '13')}"] if tip.startswith(place)]
        assert numbers and f"{row.estimate.value:+.2f} [".replace("-", "−") in numbers[0], row.keys


def test_an_axis_of_levels_holds_its_numbers_and_cuts_wide_intervals() -> None:
    rows = [Row((), Estimate(v, low=v - wide, high=v + wide)) for v, wide in ((40.0, 90.0), (60.0, 1.0))]
    low, high = bounds_of(rows, around_zero=False)
    assert (low, high) == pytest.approx((19.0, 81.0))
    low, high = bounds_of(rows, around_zero=True)
    assert -low == high == pytest.approx(1.05 * 120)
    assert bounds_of([Row((), Estimate(None))], around_zero=True) == pytest.approx((-1.05, 1.05))
    assert bounds_of([Row((), Estimate(7.0))], around_zero=False) == pytest.approx((6.95, 7.05))


def test_specifications_add_up(demo_figures: dict[str, Figure]) -> None:
    counts = [re.search(r"in (\d+) specifications", tip) for tip in tips(demo_figures["specifications"])]
    assert sum(int(found.group(1)) for found in counts if found) == 22 * 5 * 2 * 30


def test_what_was_not_measured_is_not_drawn(demo_panel: Panel) -> None:
    from analysis.protocols.matrices import SIDES

    accuracy_only = dataclasses.replace(
        demo_panel,
        values={key: values for key, values in demo_panel.values.items() if not key[2].startswith("confidence")},
    )
    found = {table.name: table for table in build_tables(accuracy_only, TABLES)}
    names = {figure.name for figures in sections(accuracy_only, found).values() for figure in figures}
    assert "cross_stage_confidence" not in names and "alignment" not in names and "figure6" not in names
    assert "cross_stage_accuracy" in names
    empty = matrix_figure(accuracy_only, "confidence", "cross")
    assert all("not measured" in tip for tip in tips(empty)) and SIDES["cross"] == ("PT", "SFT")


def test_a_category_of_the_users_own_is_seen(demo_panel: Panel, demo_tables: dict[str, Table]) -> None:
    """Its class has a rule, its lines a colour: five categories more than the stylesheet names, one of two words."""
    own = ("wordplay", "Word games", "Chess", "Cooking", "Sailing")
    category_of = dict(demo_panel.category_of) | dict(zip(demo_panel.benchmarks, own, strict=False))
    panel = dataclasses.replace(demo_panel, category_of=category_of)
    hues = [panel.hue(category) for category in panel.categories]
    assert len(set(hues[:4])) == 4 and hues[4] == hues[0] and hues[-1] == "semantic"
    by_name = {name: demo_panel.displays[slug] for name, slug in zip(own, panel.benchmarks, strict=False)}
    rows = {row.keys[3]: row for row in demo_tables["table5"].rows if row.keys[:2] == ("mini_s", "accuracy")}
    mine = [replace_key(rows[display], 2, category) for category, display in by_name.items()]
    figures = [
        cross_stage(panel, dataclasses.replace(demo_tables["table5"], rows=tuple(mine)), "accuracy"),
        alignment_scatter(panel),
        accuracy_heatmap(panel),
        seed_noise(panel),
        matrix_figure(panel, "accuracy", "cross"),
    ]
    rules = re.findall(r"\.(\w+) \{([^}]*)\}", light_style())
    known, stroked = {name for name, _ in rules}, {name for name, body in rules if "stroke: #" in body}
    for figure in figures:
        assert figure is not None
        for mark in figure.scene.marks:
            assert set(mark["cls"].split()) <= known, (figure.name, mark["cls"])
            if mark["kind"] == "line":
                assert set(mark["cls"].split()) & stroked, (figure.name, mark["cls"])
    assert sum("whisker own" in mark["cls"] for mark in figures[0].scene.marks) == len(own)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_category_is_legible_on_paper_of_its_theme(theme: str) -> None:
    """Contrast of WCAG 2, of which words need 4.5."""
    css = style().split("@media (prefers-color-scheme: dark)")[theme == "dark"]
    colours = dict(re.findall(r"--([a-z]+\d?): (#[0-9a-f]{6})", css))

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    names = [category.lower() for category in CATEGORIES] + [f"own{k}" for k in range(OWN_HUES)]
    assert len({colours[name] for name in names}) == len(names)
    for name in names:
        low, high = sorted((luminance(colours[name]), luminance(colours["paper"])))
        assert (high + 0.05) / (low + 0.05) >= 4.5, name


def replace_key(row: Row, place: int, key: str) -> Row:
    return dataclasses.replace(row, keys=(*row.keys[:place], key, *row.keys[place + 1 :]))


@pytest.mark.usefixtures("tables_are_built")
def test_the_command(
    demo: Path,
    demo_figures: dict[str, Figure],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = ["--runs", str(demo), "--study", "demo", "--out", str(tmp_path / "figures")]
    main(given)
    out = capsys.readouterr().out
    written = {path.name for path in (tmp_path / "figures").iterdir()}
    assert written == {f"{name}.svg" for name in demo_figures} and all(name in out for name in written)
    assert {"figure3.svg", "figure15.svg", "specifications.svg"} <= written
    some = [demo_figures[name] for name in ("figure1", "alignment")]  # a PDF takes half a second
    monkeypatch.setattr("analysis.figures.catalogue.sections", lambda panel, tables: {"some": some})
    main([*given, "--format", "svg, pdf"])
    assert capsys.readouterr().out.count(".pdf  ") == 2
    assert {path.name for path in (tmp_path / "figures").iterdir()} == written | {"figure1.pdf", "alignment.pdf"}
    assert chosen_formats("pdf") == ["pdf"]
    with pytest.raises(ConfigError, match="no format 'png'"):
        chosen_formats("svg,png")


def test_accuracy_alone_is_drawn_too() -> None:
    """Without confidence there is no alignment, so that a facet of the web differences has no number to scale it."""
    cube = {key: matrix for key, matrix in random_cube(0).items() if key[2] == "accuracy"}
    panel = panel_of(cube, beside_paper=False)
    tables = {table.name: table for table in build_tables(panel, ["web_differences"])}
    drawn = web_figures(panel, tables)
    assert "figure13" in drawn and "alignment, PT" in drawn["figure13"].scene.svg()
