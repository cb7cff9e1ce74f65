"""The training benchmark runs, and its contenders do the same work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from train_runs import PROJECT, environment

from configs.artifacts import read_json
from configs.load import load_train


@pytest.mark.slow
def test_all_contenders_train_alike(tmp_path: Path) -> None:
    out = tmp_path / "throughput.json"
    script = PROJECT / "tests" / "perf" / "train_throughput.py"
    done = subprocess.run(
        [sys.executable, str(script), "--quick", "--end-to-end", "--config", "mini_s.yaml", "--output", str(out)],
        capture_output=True,
        text=True,
        cwd=PROJECT,
        env=environment(),
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = read_json(out)
    assert (found["device"], found["torch"]) == ("CPU, one thread", torch.__version__)
    result = found["configs"]["mini_s"]
    rows = result["contenders"]
    assert set(rows) == {"ours", "megatron-core", "PyTorch", "transformers"}
    for name, row in rows.items():
        assert row["first_losses"] == pytest.approx(rows["PyTorch"]["first_losses"], abs=1e-4), name
        assert row["tokens_per_s"] > 0
    losses = rows["ours"]["first_losses"]
    assert losses[0] == pytest.approx(7.2, abs=0.3) and losses[2] < losses[0] - 1e-3  # ln 1280 = 7.15
    assert result["best_other"] in rows and result["ours_over_best_other"]["ours"] > 0
    assert result["end_to_end"]["tokens_per_s"] > 0


class _Fake:
    """Steps of 1/speed seconds on a clock of its own."""

    clock = 0.0

    def __init__(self, speed: float) -> None:
        self.seconds = 1 / speed

    def step(self, batch: Any, lr: float) -> torch.Tensor:
        _Fake.clock += self.seconds
        return torch.tensor(3.0)


def _too_big(start: Any) -> _Fake:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 TiB. GPU 0 has ...")


def test_ratios_and_a_contender_that_does_not_fit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(PROJECT / "tests" / "perf"))
    import train_throughput

    monkeypatch.setattr(train_throughput.Stopwatch, "now", lambda self: _Fake.clock)
    start: Any = SimpleNamespace(ranks=SimpleNamespace(device=torch.device("cpu")))
    contenders = {"ours": lambda _: _Fake(30), "fast": lambda _: _Fake(40), "slow": lambda _: _Fake(5), "big": _too_big}
    timings = train_throughput.measure(contenders, start, [], rounds=3, steps=2)
    result = train_throughput.summarise(load_train("mini_s.yaml"), timings, 1000, torch.device("cpu"))
    train_throughput.show("fakes", result)
    assert result["contenders"]["ours"]["tokens_per_s"] == pytest.approx(30_000)
    assert (result["best_other"], result["ours_over_best_other"]) == ("fast", {"ours": 0.75})
    assert result["contenders"]["big"] == {"failure": "out of memory: CUDA out of memory"}
    assert "big                 out of memory" in capsys.readouterr().out


def test_contenders_that_compute_something_else_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(PROJECT / "tests" / "perf"))
    from train_throughput import Timing, check_losses

    check_losses({"a": Timing(losses=[7.0, 6.9]), "b": Timing(losses=[7.00005, 6.9])}, "fp32")
    with pytest.raises(AssertionError, match="b computes something else"):
        check_losses({"a": Timing(losses=[7.0, 6.9]), "b": Timing(losses=[7.0, 6.8])}, "fp32")
    with pytest.raises(AssertionError, match="nothing is learnt"):
        check_losses({"a": Timing(losses=[7.0, 7.0])}, "fp32")
