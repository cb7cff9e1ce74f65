"""TensorBoard's files, read with TensorBoard's own reader, against metrics.jsonl; W&B through a stand-in."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from train_runs import TINY

from megatron_train import cli, pretrain
from megatron_train.optimizer.flat_adamw import FlatAdamW
from megatron_train.training import tracking

OPTIONS = ["checkpoint_tokens=[1920]", "validation.every_steps=10"]


def run_pretrain(data: Path, runs: Path, *overrides: str) -> Path:
    where = ["--config", "mini_s.yaml", "--study", "t", "--data", str(data), "--runs", str(runs)]
    pretrain.main([*where, *TINY, *OPTIONS, *overrides])
    return runs / "t" / "mini_s" / "V1P0" / "seed0" / "pt"


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows: tag -> (step, value)."""
    shown = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    shown.Reload()
    return {tag: [(event.step, event.value) for event in shown.Scalars(tag)] for tag in shown.Tags()["scalars"]}


def check_curves(run: Path) -> None:
    """Every number of metrics.jsonl stands once in the curves, and nothing else does."""
    expected: dict[str, list[tuple[int, float]]] = {}
    for text in (run / "metrics.jsonl").read_text().splitlines():
        line = json.loads(text)
        step = line["step"]
        if "loss" in line:
            names = ("loss", "lr", "grad_norm", "tokens", "tokens_per_s", "memory_gib")
            values = {f"train/{name}": line[name] for name in names}
        else:
            values = {
                f"{kind}/{source}": x for kind in ("validation", "bits_per_byte") for source, x in line[kind].items()
            }
        for tag, value in values.items():
            expected.setdefault(tag, []).append((step, value))
    found = curves(run / "tensorboard")
    assert found.keys() == expected.keys()
    for tag, points in expected.items():
        assert [step for step, _ in found[tag]] == [step for step, _ in points], tag
        assert [value for _, value in found[tag]] == pytest.approx([value for _, value in points], rel=1e-6), tag


def test_the_curves_are_those_of_the_metrics_file(data: Path, tmp_path: Path) -> None:
    run = run_pretrain(data, tmp_path)
    check_curves(run)
    found = curves(run / "tensorboard")
    assert [step for step, _ in found["train/loss"]] == list(range(1, 31))
    assert [step for step, _ in found["bits_per_byte/arxiv"]] == [10, 20, 30]


@pytest.mark.parametrize("steps_done", [7, 17])
def test_an_interrupted_run_shows_no_step_twice(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps_done: int
) -> None:
    """The metrics of the last seconds are written, but lie beyond the checkpoint that the run goes on from."""
    step, calls = FlatAdamW.step, []

    def interrupted(self: FlatAdamW, lr: float) -> Any:
        calls.append(lr)
        if len(calls) > steps_done:
            raise KeyboardInterrupt
        return step(self, lr)

    monkeypatch.setattr(FlatAdamW, "step", interrupted)
    with pytest.raises(SystemExit, match="130"):
        run_pretrain(data, tmp_path, "log_every_steps=1")
    run = tmp_path / "t" / "mini_s" / "V1P0" / "seed0" / "pt"
    assert len(curves(run / "tensorboard")["train/loss"]) == steps_done, "nothing that was written is lost"
    monkeypatch.setattr(FlatAdamW, "step", step)
    run_pretrain(data, tmp_path)
    check_curves(run)
    assert len(list((run / "tensorboard").iterdir())) == 1


def test_a_reader_that_watched_the_interrupted_run_forgets_its_steps(tmp_path: Path) -> None:
    """TensorBoard keeps what it read of a file that is gone; the new file tells it to start again."""
    first, second = tracking.EventFile(tmp_path / "one"), tracking.EventFile(tmp_path / "two")
    first.start({"step": step, "loss": 9.0} for step in range(1, 6))
    second.start({"step": step, "loss": 5.0} for step in range(1, 4))
    watched = tmp_path / "watched"
    watched.mkdir()
    first.path.rename(watched / "events.out.tfevents.0000000001.host")
    shown = EventAccumulator(str(watched), size_guidance={"scalars": 0})
    shown.Reload()
    assert len(shown.Scalars("train/loss")) == 5
    second.path.rename(watched / "events.out.tfevents.0000000002.host")
    shown.Reload()
    assert [(event.step, event.value) for event in shown.Scalars("train/loss")] == [(1, 5.0), (2, 5.0), (3, 5.0)]


class StandIn(types.ModuleType):
    """The part of wandb that is used."""

    class Error(Exception):
        pass

    def __init__(self, refusal: str = "") -> None:
        super().__init__("wandb")
        self.__spec__ = types.SimpleNamespace(name="wandb")  # type: ignore[assignment]
        self.refusal = refusal
        self.started: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.ended: list[int] = []

    def init(self, **options: Any) -> StandIn:
        if self.refusal:
            raise self.Error(self.refusal)
        self.started.append(options)
        return self

    def log(self, values: dict[str, float], step: int) -> None:
        self.logged.append((step, values))

    def finish(self, exit_code: int) -> None:
        self.ended.append(exit_code)


def test_wandb_gets_the_same_numbers(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = StandIn()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    run = run_pretrain(data, tmp_path, "tracking.wandb_project=magic")
    lines = [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]
    (options,) = wandb.started
    assert (options["project"], options["name"]) == ("magic", "mini_s/V1P0/seed0/pt")
    assert options["config"]["model"]["hidden"] == 24
    losses = [(step, values["train/loss"]) for step, values in wandb.logged if "train/loss" in values]
    assert losses == [(line["step"], line["loss"]) for line in lines if "loss" in line]
    assert [(s, v["validation/arxiv"]) for s, v in wandb.logged if "validation/arxiv" in v] == [
        (line["step"], line["validation"]["arxiv"]) for line in lines if "validation" in line
    ]
    assert wandb.ended == [0]
    # Who watches a run does not change what it is: with another project, or none, it is done.
    run_pretrain(data, tmp_path, "tracking.wandb_project=other")
    run_pretrain(data, tmp_path)
    assert len(wandb.started) == 1


def test_wandb_goes_on_with_the_run_that_was_interrupted(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = StandIn()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    step, calls = FlatAdamW.step, []

    def signalled(self: FlatAdamW, lr: float) -> Any:
        calls.append(lr)
        if len(calls) == 12:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, lr)

    monkeypatch.setattr(FlatAdamW, "step", signalled)
    with pytest.raises(SystemExit):
        run_pretrain(data, tmp_path, "tracking.wandb_project=magic")
    monkeypatch.setattr(FlatAdamW, "step", step)
    run_pretrain(data, tmp_path, "tracking.wandb_project=magic")
    first, second = wandb.started
    assert first["id"] == second["id"] and second["resume"] == "allow"
    assert [s for s, values in wandb.logged if "train/loss" in values] == list(range(1, 31))
    assert wandb.ended == [1, 0]
    # Another run of the same project is another one there too.
    run_pretrain(data, tmp_path, "tracking.wandb_project=magic", "seed=1")
    assert wandb.started[2]["id"] != first["id"]


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (None, "the package wandb for tracking.wandb_project (pip install -c constraints.txt wandb)"),
        (StandIn("No API key configured"), "Weights & Biases: No API key configured"),
    ],
    ids=["not installed", "not logged in"],
)
def test_wandb_refuses_before_training(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    module: StandIn | None,
    message: str,
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", module)
    if module is None:
        monkeypatch.setattr(cli, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stop:
        run_pretrain(data, tmp_path, "tracking.wandb_project=magic")
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("pt"))


def test_utilisation_is_shown_where_it_is_known() -> None:
    line = {"step": 3, "loss": 1.5, "mfu_full": 0.4, "mfu_causal": 0.3, "time": 1.0}
    assert tracking.scalars(line) == {"train/loss": 1.5, "train/mfu_full": 0.4, "train/mfu_causal": 0.3}
    assert tracking.scalars({"step": 3, "tokens": 9, "spike": {"loss": math.inf}}) == {}
