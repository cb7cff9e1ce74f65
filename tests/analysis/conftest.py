"""Fixtures: the writer of score files, the study `demo` with its panel, tables and figures, and its report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from score_rows import make_study, row, write_rows

from analysis.figures.catalogue import sections
from analysis.panel.load import load_panel
from analysis.panel.panel import Panel
from analysis.rendering.table import Table
from analysis.report.page import build_report
from analysis.tables.catalogue import build_tables
from configs.drawing.scene import Figure
from configs.layout import StudyFolder


@pytest.fixture
def writer() -> Callable[..., Path]:
    return write_rows


@pytest.fixture
def make_row() -> Callable[..., dict[str, Any]]:
    return row


@pytest.fixture
def study_maker() -> Callable[..., Path]:
    return make_study


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs folder with the study `demo`: nine mixtures, two scales, three seeds of V1P0, 30 examples a benchmark."""
    runs = tmp_path_factory.mktemp("runs")
    make_study(runs, extra_seeds={"V1P0": (1, 2)})
    return runs


@pytest.fixture(scope="session")
def full(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`demo` with a declared order and run folders beside its scores; not to be changed."""
    runs = tmp_path_factory.mktemp("full")
    shutil.copytree(demo / "demo", runs / "demo")
    doses = {f"V{v}P{p}": float(3 * v + p) for v in (1, 2, 3) for p in (0, 1, 2)}
    (runs / "demo/declared.json").write_text(json.dumps({"learnable": {"piqa": doses, "sciq": doses}}))
    for scale in ("mini_s", "mini_m"):
        run_folder = runs / "demo" / scale / "V1P0/seed0/pt"
        run_folder.mkdir(parents=True)
        lines = [json.dumps({"step": s, "tokens": s * 100, "loss": 5 / s}) for s in range(1, 100)]
        lines += [json.dumps({"step": 99, "tokens": 9900, "validation": {"a": 0.5, "b": 0.7}}), '{"step": 1']
        (run_folder / "metrics.jsonl").write_text("\n".join(lines))
    return runs


@pytest.fixture(scope="session")
def report_page(full: Path) -> Path:
    """The report of `full`: its index.html, with tables and figures beside it."""
    return build_report(StudyFolder(full, "demo"))


@pytest.fixture(scope="session")
def demo_panel(demo: Path) -> Panel:
    return load_panel(StudyFolder(demo, "demo"))


@pytest.fixture(scope="session")
def demo_tables(demo_panel: Panel) -> dict[str, Table]:
    """All, by name."""
    return {table.name: table for table in build_tables(demo_panel)}


@pytest.fixture
def tables_are_built(demo_panel: Panel, demo_tables: dict[str, Table], monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands on `demo` take its tables as they are, so that only one test pays for making them."""

    def built(panel: Panel, names: Sequence[str] | None = None) -> list[Table]:
        assert panel.fingerprints == demo_panel.fingerprints and not panel.average_seeds
        return [demo_tables[name] for name in (demo_tables if names is None else names)]

    monkeypatch.setattr("analysis.tables.catalogue.build_tables", built)


@pytest.fixture(scope="session")
def demo_figures(demo_panel: Panel, demo_tables: dict[str, Table]) -> dict[str, Figure]:
    return {figure.name: figure for figures in sections(demo_panel, demo_tables).values() for figure in figures}
