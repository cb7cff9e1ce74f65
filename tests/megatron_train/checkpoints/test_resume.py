"""`--resume auto|STEP|never`: where a run starts, and that nothing of what came later stays."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from train_runs import TINY, TINY_SFT, read_metrics

from configs.artifacts import read_json, sha256_file
from megatron_train import cli, pretrain, sft
from megatron_train.checkpoints.checkpoint import complete
from megatron_train.optimizer.flat_adamw import FlatAdamW

# Every resume point is kept, the milestone at step 15 with an export.
KEPT = ["checkpoint_tokens=[1920]", "validation.every_steps=10", "keep_checkpoints=9"]


def run_pretrain(data: Path, runs: Path, *options: str) -> Path:
    where = ["--config", "mini_s.yaml", "--study", "t", "--data", str(data), "--runs", str(runs)]
    pretrain.main([*where, *TINY, *KEPT, *options])
    return runs / "t" / "mini_s" / "V1P0" / "seed0" / "pt"


def files(run: Path) -> dict[str, str]:
    return {str(path.relative_to(run)): sha256_file(path) for path in sorted(run.rglob("*")) if path.is_file()}


def result(run: Path) -> dict[str, Any]:
    """What a run comes to: metrics, DONE, the bytes of exports; and the steps whose checkpoints stay."""
    return {
        "metrics": read_metrics(run),
        "done": read_json(run / "DONE"),
        "exports": {name: sha for name, sha in files(run).items() if name.startswith("export/")},
        "checkpoints": [step for step, _ in complete(run / "checkpoints")],
    }


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_pretrain(data, tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def stopped(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run killed in step 25: checkpoints of steps 10, 15 and 20, metrics until 24."""
    step, calls = FlatAdamW.step, []

    def killed(self: FlatAdamW, lr: float) -> Any:
        calls.append(lr)
        if len(calls) == 25:
            raise KeyboardInterrupt
        return step(self, lr)

    runs = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FlatAdamW, "step", killed)
        with pytest.raises(SystemExit, match="130"):
            run_pretrain(data, runs, "log_every_steps=1")
    run = runs / "t" / "mini_s" / "V1P0" / "seed0" / "pt"
    assert [step for step, _ in complete(run / "checkpoints")] == [10, 15, 20]
    return run


def copy(run: Path, runs: Path) -> Path:
    shutil.copytree(run.parents[4], runs, dirs_exist_ok=True)
    return runs / run.relative_to(run.parents[4])


@pytest.fixture
def steps_run(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """One entry for each optimizer step from here on."""
    step, calls = FlatAdamW.step, []

    def counted(self: FlatAdamW, lr: float) -> Any:
        calls.append(lr)
        return step(self, lr)

    monkeypatch.setattr(FlatAdamW, "step", counted)
    return calls


@pytest.mark.parametrize(("resume", "steps"), [("auto", 10), ("20", 10), ("15", 15), ("10", 20), ("never", 30)])
def test_an_interrupted_run_comes_to_the_same(
    whole: Path, stopped: Path, data: Path, tmp_path: Path, steps_run: list[float], resume: str, steps: int
) -> None:
    run = copy(stopped, tmp_path)
    assert run_pretrain(data, tmp_path, "--resume", resume) == run
    assert len(steps_run) == steps
    assert result(run) == result(whole)


@pytest.mark.parametrize(("resume", "steps"), [("auto", 0), ("30", 0), ("15", 15), ("never", 30)])
def test_a_finished_run_starts_again_where_it_is_told_to(
    whole: Path, data: Path, tmp_path: Path, steps_run: list[float], resume: str, steps: int
) -> None:
    run = copy(whole, tmp_path)
    run_pretrain(data, tmp_path, "--resume", resume)
    assert len(steps_run) == steps
    assert result(run) == result(whole)


@pytest.mark.parametrize(
    ("gone", "steps"),
    [
        (["export/step-0000015", "export/step-0000030"], 0),  # made again of their checkpoints
        (["export/step-0000030/config.json"], 0),
        (["export/step-0000015", "checkpoints/step-0000015"], 30),  # nothing is before it any more
        (["export/step-0000030", "checkpoints/step-0000030"], 15),
    ],
)
def test_exports_that_have_gone_are_made_again(
    whole: Path, data: Path, tmp_path: Path, steps_run: list[float], gone: list[str], steps: int
) -> None:
    run = copy(whole, tmp_path)
    for name in gone:
        shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()
    run_pretrain(data, tmp_path)
    assert len(steps_run) == steps
    found, wanted = result(run), result(whole)
    assert found["exports"] == wanted["exports"] and found["done"] == wanted["done"]
    assert found["metrics"] == wanted["metrics"]


def test_nothing_of_what_came_later_stays(
    whole: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped right after it went back to step 15, the folder is that of a run which never came further."""
    run = copy(whole, tmp_path)

    def stop(self: FlatAdamW, lr: float) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(FlatAdamW, "step", stop)
    with pytest.raises(SystemExit, match="130"):
        run_pretrain(data, tmp_path, "--resume", "15")
    assert not (run / "DONE").exists()
    assert [step for step, _ in complete(run / "checkpoints")] == [15]
    assert [path.name for path in (run / "export").iterdir()] == ["step-0000015"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert max(line["step"] for line in lines) == 15


def test_a_step_that_is_not_there_is_refused_with_those_that_are(
    stopped: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy(stopped, tmp_path)
    before = files(run)
    with pytest.raises(SystemExit) as refused:
        run_pretrain(data, tmp_path, "--resume", "12")
    assert refused.value.code == 2 and files(run) == before
    error = capsys.readouterr().err
    assert "there is no checkpoint of step 12" in error and "valid: 10, 15, 20" in error
    with pytest.raises(SystemExit):
        run_pretrain(data, tmp_path / "empty", "--resume", "12")
    assert "none: the run has no checkpoint" in capsys.readouterr().err
    assert not list((tmp_path / "empty").rglob("pt"))


def test_a_damaged_checkpoint_is_refused_by_name(
    whole: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy(whole, tmp_path)
    file = next((run / "checkpoints" / "step-0000015").glob("*.distcp"))
    os.truncate(file, file.stat().st_size // 2)
    before = files(run)
    with pytest.raises(SystemExit) as refused:
        run_pretrain(data, tmp_path, "--resume", "15")
    assert refused.value.code == 2 and files(run) == before
    assert f"{file}: " in capsys.readouterr().err


def test_a_checkpoint_of_other_inputs_is_refused(
    stopped: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy(stopped, tmp_path)
    before = files(run)
    with pytest.raises(SystemExit):
        run_pretrain(data, tmp_path, "optimizer.lr=1e-3", "--resume", "10")
    assert "made from other inputs" in capsys.readouterr().err and files(run) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["data.tokenizer=none"], "token shards of refinedweb"),
        (["parallel.tensor=2"], "parallel.tensor is 2, but 1 process(es) run"),
        (["tracking.wandb_project=p"], "the package wandb"),
    ],
)
def test_nothing_is_removed_while_something_is_missing(
    whole: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    run = copy(whole, tmp_path)
    before = files(run)
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        run_pretrain(data, tmp_path, *options, "--resume", "never")
    assert message in capsys.readouterr().err and files(run) == before


def test_fine_tuning_goes_back_too(whole: Path, data: Path, tmp_path: Path, steps_run: list[float]) -> None:
    options = ["--config", "mini_s_sft.yaml", "--data", str(data), "--runs", str(tmp_path), "--parent", str(whole)]
    options += [*TINY_SFT, "checkpoint_tokens=[512]"]  # step 4
    sft.main(options)
    run = tmp_path / "t" / "mini_s" / "V1P0" / "seed0" / "sft-mini"
    first = result(run)
    for resume, steps in (("4", 4), ("never", 8)):
        steps_run.clear()
        sft.main([*options, "--resume", resume])
        assert len(steps_run) == steps and result(run) == first


@pytest.mark.parametrize("value", ["0", "-1", "newest", "1.5", ""])
def test_other_values_are_refused(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.parser("", "").parse_args(["--config", "x", f"--resume={value}"])
    assert "is neither auto nor never nor the number of a step" in capsys.readouterr().err


def test_a_run_goes_on_with_other_versions_and_keeps_both(
    whole: Path, stopped: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy(stopped, tmp_path)
    record = read_json(run / "provenance.json")
    begun = record | {"python": "3.11.0", "packages": record["packages"] | {"megatron-core": "0.0.1"}}
    (run / "provenance.json").write_text(json.dumps(begun))
    run_pretrain(data, tmp_path)
    now = read_json(run / "provenance.json")
    versions = f"Python 3.11.0 -> {record['python']}, megatron-core 0.0.1 -> {record['packages']['megatron-core']}"
    assert f"results may differ by rounding: {versions}\n" in capsys.readouterr().out
    assert now["packages"] == record["packages"] and result(run) == result(whole)
    assert [start["packages"]["megatron-core"] for start in now["earlier_starts"]] == ["0.0.1"]
    run_pretrain(data, tmp_path, "--resume", "15")  # the same versions as the last start: nothing to add or to say
    assert read_json(run / "provenance.json")["earlier_starts"] == now["earlier_starts"]
    assert "other versions" not in capsys.readouterr().out


def test_a_run_that_begins_has_no_earlier_start(
    data: Path, stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy(stopped, tmp_path)
    record = read_json(run / "provenance.json")
    (run / "provenance.json").write_text(json.dumps(record | {"python": "3.11.0"}))
    run_pretrain(data, tmp_path, "--resume", "never")
    assert read_json(run / "provenance.json")["earlier_starts"] == []
    assert "other versions" not in capsys.readouterr().out
