"""Exported results against those that lm-evaluation-harness computed on the same rows with the same model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from eval_rows import ROWS, write_benchmarks
from harness_runs import run_harness

from configs.errors import ArtifactError
from configs.layout import StudyFolder
from configs.load import BENCHMARKS, load_benchmark
from configs.scores import SCHEMA
from ray_eval.export_results import main
from ray_eval.harnesses.lm_eval_results import export_results, metrics_of
from ray_eval.results import read_scores, write_scores
from ray_eval.scoring import ScoreOptions, score_study

ExportMaker = Callable[..., Path]


def scored(runs: Path, make_export: ExportMaker, root: Path, stage: str = "pt", step: int = 1) -> Path:
    """An export of the study, scored; returns it."""
    export = make_export(StudyFolder(runs, "own").run("mini_s", "V1P0", 0, stage).export(step), step=step)
    score_study(StudyFolder(runs, "own"), ScoreOptions(documents_root=root, use_ray=False))
    return export


def test_numbers_are_the_harness_own(make_export: ExportMaker, tmp_path: Path) -> None:
    root = write_benchmarks(tmp_path / "documents", copies=3)
    export = scored(tmp_path, make_export, root)
    _, theirs = run_harness(export, {slug: rows * 3 for slug, rows in ROWS.items()}, tmp_path / "lm_eval")
    main(["--runs", str(tmp_path), "--study", "own", "--out", str(tmp_path / "back")])
    (path,) = (tmp_path / "back").rglob("*.json")
    assert path.parent.name == "own__mini_s__V1P0__seed0__pt__step-0000001"
    ours = json.loads(path.read_text())

    compared = 0
    assert ours["results"].keys() == theirs["results"].keys() and len(ours["results"]) == len(BENCHMARKS)
    for task, expected in theirs["results"].items():
        found = dict(ours["results"][task])
        if task == "multirc":
            assert found.pop("acc_true_gold,none") == pytest.approx(1 - expected["acc,none"], abs=1e-6)
            assert found.pop("acc_true_gold_stderr,none") == pytest.approx(expected["acc_stderr,none"], abs=1e-6)
        if "f1_stderr,none" in expected:  # bootstrapped there
            assert found["f1_stderr,none"] == "N/A"
            found["f1_stderr,none"] = expected["f1_stderr,none"]
        assert found == pytest.approx(expected, abs=1e-6), task
        compared += len(expected) - 3
    assert compared == 2 * (20 + 6 + 3)
    assert ours["versions"] == theirs["versions"] and ours["n-shot"] == theirs["n-shot"]
    assert {task: n["effective"] for task, n in ours["n-samples"].items()} == {
        task: n["effective"] for task, n in theirs["n-samples"].items()
    }
    for slug in BENCHMARKS:
        spec, config = load_benchmark(slug), ours["configs"][load_benchmark(slug).lm_eval_task]
        split = spec.split_in(local=True)
        assert config["test_split" if split == "test" else "validation_split"] == split
    theirs["higher_is_better"]["multirc"]["acc_true_gold"] = True
    assert ours["higher_is_better"] == theirs["higher_is_better"]


def test_the_harness_prints_our_file(make_export: ExportMaker, benchmark_root: Path, tmp_path: Path) -> None:
    from lm_eval.utils import make_table

    scored(tmp_path, make_export, benchmark_root)
    (path,) = export_results([tmp_path / "own" / "scores"], tmp_path / "back")
    shown = make_table(json.loads(path.read_text()))
    assert "acc_true_gold" in shown and "|openbookqa" in shown and "|social_iqa" in shown


def test_one_file_a_checkpoint_and_variant(make_export: ExportMaker, benchmark_root: Path, tmp_path: Path) -> None:
    scored(tmp_path, make_export, benchmark_root)
    scored(tmp_path, make_export, benchmark_root, stage="sft-text", step=20)
    first, second = sorted((tmp_path / "own" / "scores").rglob("*.parquet"))
    table = read_scores(first)
    variant = table.schema.get_field_index("variant")
    renamed = [value.replace("0shot", "5shot") for value in table["variant"].to_pylist()]
    column = pa.array(renamed, SCHEMA.field("variant").type)
    write_scores(table.set_column(variant, SCHEMA.field("variant"), column), first.with_name("5.parquet"))
    before = export_results([tmp_path / "own" / "scores"], tmp_path / "back")
    folders = sorted(path.parent.name for path in before)
    stem = "own__mini_s__V1P0__seed0__"
    assert folders == [
        f"{stem}pt__step-0000001",
        f"{stem}pt__step-0000001__lm_eval__5shot",
        f"{stem}sft-text__step-0000020",
    ]
    five = json.loads(next(path for path in before if "5shot" in str(path)).read_text())
    assert set(five["n-shot"].values()) == {5} and five["config"]["model_dtype"] == "fp32"
    content = {path: path.read_bytes() for path in before}
    assert export_results([first, second, first.with_name("5.parquet")], tmp_path / "back") == before
    assert {path: path.read_bytes() for path in before} == content
    second.with_name("again.parquet").symlink_to(second)
    assert export_results([tmp_path / "own" / "scores"], tmp_path / "back") == before
    assert {path: path.read_bytes() for path in before} == content, "a link adds no rows"


def rows(gold: list[int], logprob: list[list[float]]) -> Any:
    return pa.table({"gold": pa.array(gold, pa.int32()), "logprob_sum": logprob, "num_chars": [[2, 1]] * len(gold)})


def test_small_cases_by_hand() -> None:
    table = rows([0, 1, 1, 0], [[-1.0, -2.0], [-1.0, -1.0], [-2.0, -1.0], [-4.0, -3.0]])  # a tie goes to the first
    numbers = metrics_of("mrpc", table)
    assert numbers["acc"] == (0.5, pytest.approx((1 / 3) ** 0.5 / 2))
    assert numbers["f1"] == (0.5, "N/A")  # one of two predicted, one of two true
    assert metrics_of("piqa", rows([0], [[-1.5, -1.0]]))["acc"] == (0.0, "N/A")
    assert metrics_of("piqa", rows([0], [[-1.5, -1.0]]))["acc_norm"] == (1.0, "N/A")  # 0.75 against 1.0 a character
    assert metrics_of("mrpc", rows([0], [[-1.0, -2.0]]))["f1"] == (0.0, "N/A")
    multirc = metrics_of("multirc", table)
    assert multirc["acc"][0] == 0.5 and multirc["acc_true_gold"][0] == 0.5
    assert load_benchmark("multirc").labels == (1, 0)


def test_missing_and_foreign_files_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ArtifactError, match="no score file"):
        export_results([tmp_path], tmp_path / "out")
    pq.write_table(rows([0], [[-1.0, -2.0]]), tmp_path / "x.parquet")
    with pytest.raises(ArtifactError, match=r"x\.parquet: not a score file"):
        export_results([tmp_path], tmp_path / "out")
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path)])
    assert "name score files, or a study" in capsys.readouterr().err
