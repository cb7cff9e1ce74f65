"""Fixtures that hand out the writer of score files, and the study `demo` with its panel, tables and figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from score_rows import make_study, row, write_rows

from analysis.drawing import Figure
from analysis.figures import TABLES, sections
from analysis.panel import Panel, load_panel
from analysis.table import Table
from analysis.tables import build_tables


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
def demo_panel(demo: Path) -> Panel:
    return load_panel(demo, "demo")


@pytest.fixture(scope="session")
def demo_tables(demo_panel: Panel) -> dict[str, Table]:
    """Those whose numbers are drawn, by name."""
    return {table.name: table for table in build_tables(demo_panel, TABLES)}


@pytest.fixture(scope="session")
def demo_figures(demo_panel: Panel, demo_tables: dict[str, Table]) -> dict[str, Figure]:
    return {figure.name: figure for figures in sections(demo_panel, demo_tables).values() for figure in figures}
