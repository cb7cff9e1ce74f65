"""Figures: what they show is what was measured, in the right place, and what was not measured is not drawn."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from analysis.drawing import Figure
from analysis.figures import TABLES, main, sections
from analysis.matrix_figures import matrix_figure
from analysis.panel import Panel, load_panel
from analysis.table import Table
from analysis.tables import build_tables

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def panel(demo: Path) -> Panel:
    return load_panel(demo, "demo")


@pytest.fixture(scope="module")
def tables(panel: Panel) -> dict[str, Table]:
    return {table.name: table for table in build_tables(panel, TABLES)}


@pytest.fixture(scope="module")
def drawn(panel: Panel, tables: dict[str, Table]) -> dict[str, Figure]:
    return {figure.name: figure for figures in sections(panel, tables).values() for figure in figures}


def tips(figure: Figure) -> list[str]:
    tree = ET.fromstring(figure.scene.svg())
    return [title.text or "" for title in tree.iter(f"{SVG}title")]


def test_every_figure_is_drawn_inside_its_canvas(drawn: dict[str, Figure]) -> None:
    numbers = {name for name in drawn if re.match(r"figure\d", name)}
    wanted = ("1", "3", "4a", "4b", "5", "6", "8", "9", "10", "13", "14", "15")
    assert numbers == {f"figure{number}" for number in wanted}
    assert {"cross_stage_accuracy", "cross_stage_confidence", "specifications", "accuracy", "seed_noise"} <= set(drawn)
    for name, figure in drawn.items():
        tree = ET.fromstring(figure.scene.svg("svg { color: red }"))
        assert figure.caption and tree.get("aria-label") == figure.scene.label, name
        for mark in tree.iter():
            for key in ("x", "x1", "x2", "cx"):
                assert -1 <= float(mark.get(key, 0)) <= figure.scene.width + 1, (name, mark.attrib)
            for key in ("y", "y1", "y2", "cy"):
                assert -1 <= float(mark.get(key, 0)) <= figure.scene.height + 1, (name, mark.attrib)


def test_rows_of_the_matrix_between_stages_are_pretraining(panel: Panel, drawn: dict[str, Figure]) -> None:
    found = tips(drawn["figure10"])
    pt, sft = panel.matrix("mini_s", "PT"), panel.matrix("mini_s", "SFT")
    i, j = panel.benchmarks.index("piqa"), panel.benchmarks.index("sciq")
    for a, b, names in ((i, j, "PT PIQA with SFT SciQ"), (j, i, "PT SciQ with SFT PIQA")):
        r = np.corrcoef(pt[:, a], sft[:, b])[0, 1]
        assert f"{names}: r {r:+.2f}, n 9".replace("-", "−") in found
    assert len(found) == 2 * 20 * 20


def test_a_mark_has_its_number_its_interval_and_the_papers(tables: dict[str, Table], drawn: dict[str, Figure]) -> None:
    (row,) = (row for row in tables["table6"].rows if row.keys == ("mini_m", "SFT", "Science", "averaged"))
    e = row.estimate
    wanted = f"Science, mini_m, SFT: {e.value:+.2f} [{e.low:+.2f}, {e.high:+.2f}], n 4; paper +0.83".replace("-", "−")
    assert tips(drawn["figure6"]).count(wanted) == 3  # the mark, its interval, the paper's diamond


def test_specifications_add_up(drawn: dict[str, Figure]) -> None:
    counts = [re.search(r"in (\d+) specifications", tip) for tip in tips(drawn["specifications"])]
    assert sum(int(found.group(1)) for found in counts if found) == 21 * 5 * 2 * 30


def test_what_was_not_measured_is_not_drawn(panel: Panel) -> None:
    import dataclasses

    from analysis.matrices import SIDES

    accuracy_only = dataclasses.replace(
        panel, values={key: values for key, values in panel.values.items() if not key[2].startswith("confidence")}
    )
    found = {table.name: table for table in build_tables(accuracy_only, TABLES)}
    names = {figure.name for figures in sections(accuracy_only, found).values() for figure in figures}
    assert "cross_stage_confidence" not in names and "alignment" not in names and "figure6" not in names
    assert "cross_stage_accuracy" in names
    empty = matrix_figure(accuracy_only, "confidence", "cross")
    assert all("not measured" in tip for tip in tips(empty)) and SIDES["cross"] == ("PT", "SFT")


def test_the_command(demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--runs", str(demo), "--study", "demo", "--out", str(tmp_path / "figures")])
    out = capsys.readouterr().out
    written = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"figure3.svg", "figure15.svg", "specifications.svg"} <= written
    assert all(name in out for name in written)
