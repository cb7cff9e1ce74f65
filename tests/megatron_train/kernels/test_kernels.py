"""Which kernels are chosen: norms with Apex present or absent, the loss's pieces, what is kept for a resumed run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from train_runs import TINY, read_metrics

from configs.artifacts import read_json, write_json
from configs.load import load_train, parse_overrides
from configs.schema import ModelShape
from megatron_train import pretrain
from megatron_train.kernels import kernels, loss_chunk
from megatron_train.model.mcore import WrappedTorchNorm
from megatron_train.model.model import build_model
from megatron_train.model.norms import choose_norm
from megatron_train.ranks.parallel import Ranks

STAND_INS = Path(__file__).parents[1] / "nvidia_stand_ins"
GPU = torch.device("cuda")


@pytest.fixture
def apex(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if Apex were installed."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(STAND_INS))
    yield
    for name in set(sys.modules) - before:
        if name.startswith("apex"):
            del sys.modules[name]


def test_without_apex_the_norm_is_pytorchs() -> None:
    for device, compiled in ((GPU, True), (GPU, False), (torch.device("cpu"), False)):
        assert choose_norm(device, compiled=compiled).builder is WrappedTorchNorm


def test_apex_norms_a_model_that_is_not_compiled(apex: None, shape: ModelShape, ranks: Ranks) -> None:
    assert choose_norm(GPU, compiled=True).builder is WrappedTorchNorm
    assert choose_norm(torch.device("cpu"), compiled=False).builder is WrappedTorchNorm
    chosen = choose_norm(GPU, compiled=False)
    assert chosen.name == "Apex FusedRMSNorm"
    options: dict[str, Any] = {"tensor_parallel": 1, "device": ranks.device, "seed": 3}
    plain, fused = build_model(shape, **options), build_model(shape, **options, norm=chosen.builder)
    assert [name for name, _ in plain.named_parameters()] == [name for name, _ in fused.named_parameters()]
    norms = [type(module).__name__ for module in fused.modules() if "RMSNorm" in type(module).__name__]
    assert norms == ["FusedRMSNorm"] * (2 * shape.layers + 1)
    tokens = torch.randint(0, shape.vocab, (2, 32))
    torch.testing.assert_close(plain.logits(tokens), fused.logits(tokens), rtol=1e-5, atol=1e-6)


def test_pieces_of_the_loss_fit_the_memory() -> None:
    config = load_train("1b.yaml")  # 4 sequences of 4,096 tokens at 100,864 entries: 8 bytes a logit, 0.81 MB a token
    assert loss_chunk.candidates(config, 100e9) == [1024, 2048, 4096, 8192, 16384]
    assert loss_chunk.candidates(config, 8e9) == [1024, 2048, 4096, 8192]
    assert loss_chunk.candidates(config, 1.0) == [1024], "the smallest is tried in any case"
    halves = load_train("1b.yaml", parse_overrides(["parallel.tensor=2"]))
    assert loss_chunk.candidates(halves, 8e9) == [1024, 2048, 4096, 8192, 16384]
    odd = load_train("1b.yaml", parse_overrides(["batch.micro_sequences=1", "model.context_tokens=1500"]))
    assert loss_chunk.candidates(odd, 100e9) == [1024, 1500]


@given(st.dictionaries(st.integers(1, 10**6), st.floats(0.01, 1e4), min_size=1))
def test_a_larger_piece_must_be_faster(times: dict[int, float]) -> None:
    chosen = loss_chunk.pick(times)
    assert times[chosen] <= 1.01 * min(times.values())
    assert all(times[smaller] > 1.01 * min(times.values()) for smaller in times if smaller < chosen)


def test_a_resumed_run_keeps_its_kernels(ranks: Ranks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, record = load_train("mini_s.yaml"), tmp_path / "kernels.json"
    first = kernels.choose_kernels(config, ranks, record)
    content = read_json(record)
    assert content["loss_chunk_tokens"] == first.loss_chunk_tokens == 2**28 // config.model.vocab
    write_json(record, content | {"loss_chunk_tokens": 77, "loss_ms": {"77": 1.5}})
    again = kernels.choose_kernels(config, ranks, record)
    assert (again.loss_chunk_tokens, again.loss_ms) == (77, {77: 1.5})
    assert "77 tokens at a time (77: 1.5 ms)" in "\n".join(again.lines(config, "AdamW"))
    asked = load_train("mini_s.yaml", parse_overrides(["loss_chunk_tokens=5"]))
    assert kernels.choose_kernels(asked, ranks, record).loss_chunk_tokens == 5
    # Another machine, or another release of PyTorch, measures anew.
    monkeypatch.setattr(torch, "__version__", "9.9")
    assert kernels.choose_kernels(config, ranks, record).loss_chunk_tokens == first.loss_chunk_tokens


@pytest.mark.slow
def test_compiled_trains_like_eager(data: Path, tmp_path: Path) -> None:
    for compiled in ("true", "false"):
        options = ["--data", str(data), "--runs", str(tmp_path), "--study", compiled, *TINY, f"compile={compiled}"]
        pretrain.main(["--config", "mini_s.yaml", *options])
    fused, eager = (read_metrics(tmp_path / name / "mini_s" / "V1P0" / "seed0" / "pt") for name in ("true", "false"))
    assert len(fused) == len(eager) == 31
    for left, right in zip(fused, eager, strict=True):
        if "loss" in left:
            assert left["loss"] == pytest.approx(right["loss"], abs=1e-5)
        else:
            assert left["validation"] == pytest.approx(right["validation"], abs=1e-5)
    assert [line["loss"] for line in fused[:-1]] != [line["loss"] for line in eager[:-1]], "nothing was compiled"
