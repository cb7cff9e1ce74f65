"""score.py does what was typed, or says why not: no option is left unused without a word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from configs.errors import ResourceError
from configs.layout import StudyFolder
from ray_eval.score import main
from ray_eval.workers.engine import Workload, score_on_ray
from ray_eval.workers.worker import Worker

TOGETHER = {
    "chat of others": (["--model", "org/model", "--chat"], "--apply_chat_template", "--chat with --model org/model"),
    "workers of none": (["--no-ray", "--workers", "2"], "leave out one of the two", "--workers with --no-ray"),
    "part of a process": (
        ["--no-ray", "--gpus-per-worker", "0.5"],
        "leave out one of",
        "a part of a GPU with --no-ray",
    ),
    "no workers": (["--workers", "0"], "at least 1", "--workers: '0'"),
    "no checkpoints": (["--checkpoints", "-1"], "at least 1", "--checkpoints: '-1'"),
    "two choices": (["--study", "a", "--exports", "b"], "leave out one of", "--study with --exports"),
    "two places": (["--data", "a", "--data-root", "b"], "leave out one of", "--data, which keeps commits of the Hub"),
    "trust in nobody": (["--trust-remote-code"], "leave it out", "--trust-remote-code without --model"),
}


def refusal(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert end.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("case", TOGETHER)
def test_options_that_leave_each_other_unused(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, way_on, problem = TOGETHER[case]
    said = refusal(capsys, *arguments)
    assert problem in said and way_on in said


def test_options_that_no_checkpoint_is_for(
    make_export: Callable[..., Path], benchmark_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    pretrained, tuned = (
        make_export(StudyFolder(runs, "trial").run("mini_s", "V1P0", 0, stage).export(1))
        for stage in ("pt", "sft-text")
    )
    command = ["--no-ray", "--data-root", benchmark_root, "--benchmarks", "piqa"]
    assert "none of these checkpoints is fine-tuned" in refusal(capsys, *command, "--exports", pretrained, "--chat")
    elsewhere = refusal(capsys, *command, "--exports", pretrained, "--runs", tmp_path)
    assert f"exports of study trial lie in {runs}, not below --runs {tmp_path}" in elsewhere
    assert not list(runs.rglob("*.parquet"))
    main([*map(str, command), "--exports", str(pretrained), str(tuned), "--chat", "--runs", str(runs)])
    assert len(list(runs.rglob("*.parquet"))) == 2


def test_a_study_that_is_not_there_is_said_beside_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refusal(capsys, "--no-ray", "--runs", tmp_path, "--study", "typo", "--model", tmp_path / "no model")
    assert f"{tmp_path / 'typo'}: no export of this study" in said and "no model" in said


def test_gpus_that_are_not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 2.0})
    with pytest.raises(ResourceError, match="2 GPUs are to share a model, 0 are here"):
        Worker(num_gpus=2)
    with pytest.raises(ResourceError, match=r"0\.5 GPUs for a worker, and the Ray cluster has none"):
        list(score_on_ray(Workload([]), print, gpus_per_worker=0.5))
