"""The table that a call of score.py ends with."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.scores.gather import gather
from analysis.scores.metrics import compute
from analysis.scores.score_files import read_scores as read_study
from configs.layout import StudyFolder
from configs.load import BENCHMARKS
from ray_eval.checkpoints.exports import inspect_exports
from ray_eval.results import read_scores
from ray_eval.score import main
from ray_eval.summary import FEW, lines, print_summary

ExportMaker = Callable[..., Path]


def scored(make_export: ExportMaker, root: Path, runs: Path, count: int) -> None:
    for seed in range(count):
        make_export(StudyFolder(runs, "trial").run("mini_s", "V1P0", seed, "pt").export(7), seed=seed, step=7)
    main(["--no-ray", "--runs", str(runs), "--data-root", str(root)])


def test_the_numbers_are_those_of_the_analysis(
    make_export: ExportMaker, benchmark_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored(make_export, benchmark_root, tmp_path, 1)
    printed = capsys.readouterr().out
    (export,) = inspect_exports(StudyFolder(tmp_path, "trial"))[0]
    found = {line.benchmark: line for line in lines(read_scores(export.score_file))}
    assert sorted(found) == sorted(BENCHMARKS)
    frame = compute(gather(read_study(StudyFolder(tmp_path, "trial")))).set_index(
        ["benchmark", "metric", "normalisation"]
    )
    for slug, line in found.items():
        accuracy = frame.loc[slug, "accuracy", "sum"]
        assert (line.n, line.accuracy, line.stderr) == pytest.approx((accuracy.n, accuracy.value, accuracy.stderr))
        assert line.confidence == pytest.approx(frame.loc[slug, "confidence", "sum"].value)
        assert line.chance == pytest.approx(frame.loc[slug, "chance", ""].value)
        if line.per_character is not None:
            assert line.per_character == pytest.approx(frame.loc[slug, "accuracy", "char"].value)
        (row,) = (row for row in printed.splitlines() if row.startswith(f"{slug} "))
        assert f"{line.accuracy:.3f}" in row and f"{line.confidence:.3f}" in row and row.rstrip().endswith(f"{line.n}")
        assert len(row) <= 80  # as wide as a terminal of old, or a job's log
    with_characters = {slug for slug, line in found.items() if line.per_character is not None}
    assert with_characters == {"hellaswag", "piqa", "arc_challenge", "arc_easy", "sciq", "openbookqa"}
    assert "mini_s V1P0 seed 0 PT step 7  (lm_eval/0shot)" in printed
    assert f"of {len(BENCHMARKS)} above chance by more than 2 standard errors" in printed


def test_many_checkpoints_get_a_line_each(
    make_export: ExportMaker, benchmark_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored(make_export, benchmark_root, tmp_path, FEW + 1)
    printed = capsys.readouterr().out
    exports = inspect_exports(StudyFolder(tmp_path, "trial"))[0]
    for export in exports:
        of_export = lines(read_scores(export.score_file))
        mean = math.fsum(line.accuracy for line in of_export) / len(of_export)
        above = sum(line.accuracy - 2 * line.stderr > line.chance for line in of_export)
        (row,) = (row for row in printed.splitlines() if f"seed {export.run.seed} PT" in row)
        assert f" {mean:.3f} " in row and row.rstrip().endswith(f"{above} of {len(BENCHMARKS)}")
    assert "hellaswag" not in printed
    print_summary(exports, full=True)
    assert capsys.readouterr().out.count("hellaswag ") == FEW + 1


def test_only_scores_of_these_weights_are_shown(
    make_export: ExportMaker, benchmark_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scored(make_export, benchmark_root, tmp_path, 2)
    make_export(StudyFolder(tmp_path, "trial").run("mini_s", "V1P0", 0, "pt").export(7), seed=9, step=7)
    inspect_exports(StudyFolder(tmp_path, "trial"))[0][1].score_file.unlink()
    capsys.readouterr()
    print_summary(inspect_exports(StudyFolder(tmp_path, "trial"))[0])
    assert capsys.readouterr().out.strip() == ""
