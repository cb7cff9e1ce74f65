"""The commands: tables with and without a study; loss curves of run folders."""

from __future__ import annotations

import csv
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.figures import loss as training
from analysis.panel.load import load_panel
from analysis.panel.panel import Panel
from analysis.panel.studies import choose_study, study_of_scores
from analysis.rendering.table import Row, Table
from analysis.stats.estimates import Estimate
from analysis.tables import __main__ as tables
from analysis.tables.catalogue import MAKERS, parse_table_names
from configs.errors import ArtifactError, ConfigError
from configs.layout import PROJECT_ROOT, StudyFolder

MODULES = ("tables", "figures", "report", "compare", "planner", "tidy")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=300
    )


@pytest.mark.parametrize("module", [f"analysis.{m}" for m in MODULES])
def test_help_has_examples_and_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, runpy; sys.argv = ['x', '--help']\ntry: runpy.run_module({module!r}, run_name='__main__')\n"
    code += "except SystemExit: print('HEAVY', {'pandas', 'numpy', 'scipy', 'pyarrow', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True)
    assert "example" in done.stdout and "HEAVY set()" in done.stdout


def test_analysis_needs_neither_torch_nor_megatron() -> None:
    code = "import sys, analysis.report.page, analysis.figures.catalogue, analysis.figures.loss\n"
    code += "import analysis.compare.comparison, analysis.planner.requirements, analysis.tidy.table\n"
    code += "import analysis.tables.catalogue, analysis.tables.settings, analysis.provenance.publish\n"
    code += "import analysis.provenance.why; analysis.tables.catalogue.MAKERS\n"
    code += "drawing = {'typst'} & set(sys.modules)\nimport analysis.rendering.pdf\n"
    code += "others = {'torch', 'megatron', 'ray', 'mixtures', 'megatron_train', 'ray_eval'} & set(sys.modules)\n"
    code += "print(drawing | others)"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_without_a_study_the_paper_is_printed(tmp_path: Path) -> None:
    done = run("analysis.tables", "--runs", str(tmp_path / "none"))
    assert done.returncode == 0 and not done.stderr
    for number in range(5, 12):
        assert f"Table {number}." in done.stdout
    assert "PAPER'S NUMBERS ONLY" in done.stdout and "make study" in done.stdout and "0.50" in done.stdout


def test_unknown_study_is_a_user_error(demo: Path) -> None:
    done = run("analysis.tables", "--runs", str(demo), "--study", "nope")
    assert done.returncode == 2 and "demo" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.usefixtures("tables_are_built")
def test_tables_of_a_study(demo: Path, demo_panel: Panel, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables.main(["--runs", str(demo)])
    out = capsys.readouterr().out
    assert "mini_s stands beside the paper's 240M" in out and "880 of 880" in out
    for number in range(5, 12):
        assert f"Table {number}." in out
    assert "outside" in out and "smallest possible p" in out
    folder = tmp_path / "tables"
    tables.main(["--runs", str(demo), "--out", str(folder)])
    assert capsys.readouterr().out == f"written: {folder}/*.csv, *.md, *.tex\n"
    names = {p.name for p in folder.iterdir()}
    written = set(MAKERS) - {"early", "replication"}  # neither checkpoints on the way nor second seeds were scored
    written |= {"table2", "table3", "table4"}  # of the models, Table 1, nothing is known without study.yaml
    assert names == {f"{table}.{suffix}" for table in written for suffix in ("csv", "md", "tex")}
    assert len(names) > 3 * 12

    rows = list(csv.DictReader((folder / "table5.csv").open()))
    assert len(rows) == 2 * 2 * 21
    panel = demo_panel
    pt, sft = panel.matrix("mini_m", "PT")[:, 0], panel.matrix("mini_m", "SFT")[:, 0]
    mine = next(r for r in rows if (r["scale"], r["metric"], r["benchmark"]) == ("mini_m", "accuracy", "HellaSwag"))
    assert float(mine["value"]) == pytest.approx(np.corrcoef(pt, sft)[0, 1], abs=1e-12)
    assert float(mine["paper"]) == 0.99
    assert float(mine["difference"]) == pytest.approx(float(mine["value"]) - 0.99)
    expected = "inside" if float(mine["low"]) <= 0.99 <= float(mine["high"]) else "outside"
    assert mine["verdict"].startswith((expected, "no claim"))
    assert len({row["scores"] for row in rows}) == 2  # each scale has score files of its own


def test_one_table_in_any_form_from_scores_anywhere(
    demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(demo / "demo/scores", tmp_path / "published/deep")
    told = ["--scores", str(tmp_path / "published"), "--table"]
    tables.main([*told, "5", "--format", "csv"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("scale,metric,category,benchmark,paper,value") and len(lines) == 1 + 2 * 2 * 21
    tables.main(["--runs", str(demo), "--study", "demo", "--table", "5", "--format", "csv"])
    assert capsys.readouterr().out.splitlines() == lines
    tables.main([*told, "11, 7", "--format", "md"])
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if line.startswith("# ")] == [
        "# Table 11. Mean accuracy by web source, larger scale after SFT",
        "# Table 7. FineWeb-Edu minus RefinedWeb, after pretraining",
    ]
    assert [*tmp_path.iterdir()] == [tmp_path / "published"]  # nothing is left beside other people's files
    with pytest.raises(ConfigError, match="no table '4x'"):
        parse_table_names("5,4x")
    with pytest.raises(ArtifactError, match="no score file"), study_of_scores(tmp_path / "none"):
        pass


def test_a_study_that_names_a_path_is_refused(tmp_path: Path, writer: Callable[..., Path], make_row: Any) -> None:
    writer(tmp_path / "in/a.parquet", [make_row(study="../../elsewhere")])
    with pytest.raises(ArtifactError, match="study is "), study_of_scores(tmp_path / "in"):
        pass


def test_decisions_of_a_study(demo_panel: Panel, demo_tables: dict[str, Table]) -> None:
    """Against the pairs counted one by one; the regret is paid after SFT at the larger scale."""
    panel, table = demo_panel, demo_tables["decisions"]
    (row,) = (row for row in table.rows if row.keys == ("mini_m PT", "mini_m SFT", "HellaSwag"))
    early, late = panel.matrix("mini_m", "PT")[:, 0], panel.matrix("mini_m", "SFT")[:, 0]
    products = [(early[i] - early[j]) * (late[i] - late[j]) for i in range(9) for j in range(i)]
    assert row.estimate.value == pytest.approx(np.mean([0.5 if abs(p) < 1e-15 else p > 0 for p in products]))
    said = table.values(row)
    assert said["regret, pp"] == pytest.approx(late.max() - late[np.argmax(early)])
    assert said["first early"] == (panel.mixtures[np.argmax(early)],)
    assert said["best late"] == (panel.mixtures[np.argmax(late)],)
    assert table.texts(row)[1] == f"{100 * (late.max() - late[np.argmax(early)]):.1f}"
    assert len(table.rows) == 5 * 25 and sum(row.brief for row in table.rows) == 5 * 5
    # At the smaller scale it is at chance after pretraining: nobody would have decided by it.
    (guessed,) = (row for row in table.rows if row.keys == ("mini_s PT", "mini_m SFT", "HellaSwag"))
    assert guessed.no_claim == "all at chance or constant (mini_s PT)" and guessed.estimate.value is not None
    assert table.texts(guessed)[1] == "" and table.values(guessed)["best late"] == said["best late"]


def test_more_arrangements_than_a_float_holds_are_written() -> None:
    """61 models and 24 benchmarks whose models are shuffled on their own: 61! ** 23."""
    counts = (362_880, math.factorial(61) ** 23)
    estimates = [Estimate(0.5, n=9, arrangements=count, smallest_p=1e-4) for count in counts]
    table = Table("t", "t", ("key",), (), tuple(Row(("x",), estimate) for estimate in estimates))
    assert "distinct arrangements: 3.6e+5 to 1.7e+1925; smallest possible p: 0.0001" in table.notes
    few = replace(table, rows=table.rows[:1])
    assert "distinct arrangements: 362,880; smallest possible p: 0.0001" in few.notes


def test_newest_study_is_chosen_and_named(
    tmp_path: Path, study_maker: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("old", "new"):
        study_maker(tmp_path, name, mixtures=("V1P0",), benchmarks=("piqa",), n=3)
        time.sleep(0.02)
    assert choose_study(tmp_path, None) == StudyFolder(tmp_path, "new")
    assert "others: old" in capsys.readouterr().out


def test_loss_curves_survive_a_cut_last_line_only(full: Path, tmp_path: Path) -> None:
    panel = load_panel(StudyFolder(full, "demo"))
    curve = training.loss_curves(panel)[0]
    assert curve.kind == "training" and curve.validation == ((9900.0, pytest.approx(0.6)),) and len(curve.points) == 60
    path = tmp_path / "demo/mini_s/V1P0/seed0/pt/metrics.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text('{"step": 1\n{"step": 2, "tokens": 2, "loss": 1}\n')
    with pytest.raises(ArtifactError, match="line 1"):
        training.loss_curves(replace(panel, study=StudyFolder(tmp_path, "demo")))
