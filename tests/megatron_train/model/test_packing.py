"""Packed rows: what goes where, and that every example is computed as if it stood alone."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from train_runs import TINY, TINY_SFT, TOKENIZER, launch, read_metrics
from transformers import LlamaForCausalLM

from configs.layout import tokenizer_dir
from configs.schema import ModelShape
from megatron_train.checkpoints.export import export, gather
from megatron_train.data import MicroBatch
from megatron_train.model.model import LanguageModel, build_model
from megatron_train.model.packing import Segments, pack, padding
from megatron_train.model.rotary import Rotary
from megatron_train.ranks.parallel import Ranks
from megatron_train.training.step import micro_loss

# ---- which example goes into which row


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=40), room=st.integers(0, 60), ranks=st.integers(1, 8))
def test_every_example_is_in_one_row_and_rows_are_few_and_even(lengths: list[int], room: int, ranks: int) -> None:
    row_tokens = max(lengths) + room
    rows = pack(lengths, row_tokens, ranks)
    assert Counter(example for row in rows for example in row) == Counter(range(len(lengths)))
    assert len(rows) % ranks == 0
    filled = [sum(lengths[example] for example in row) for row in rows]
    assert max(filled) <= row_tokens
    assert max(filled) - min(filled) <= max(lengths)
    # A row is added only where all others are more than half full.
    assert len(rows) < 2 * sum(lengths) / row_tokens + ranks
    assert pack(lengths, row_tokens, ranks) == rows


def test_rows_of_known_examples() -> None:
    """20 tokens fill two rows of 10; three ranks need a third; 5 of more than half a row each need five."""
    assert [sorted(row) for row in pack([6, 4, 5, 5], 10, 1)] == [[0, 1], [2, 3]]
    assert sorted(map(len, pack([6, 4, 5, 5], 10, 3))) == [1, 1, 2]
    assert sorted(map(len, pack([6] * 5, 10, 1))) == [1] * 5
    assert sorted(map(len, pack([6] * 5, 10, 4))) == [0, 0, 0, 1, 1, 1, 1, 1]


@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=12))
def test_segments(lengths: list[int]) -> None:
    segments = Segments.of(lengths)
    ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
    assert segments.boundaries.tolist() == [0, *ends] and segments.boundaries.dtype == torch.int32
    assert segments.positions.tolist() == [place for length in lengths for place in range(length)]
    assert (segments.count, segments.longest) == (len(lengths), max(lengths))
    padded = [[i if place < length else None for place in range(max(lengths))] for i, length in enumerate(lengths)]
    flat = [owner for row in padded for owner in row]
    owners = [i for i, length in enumerate(lengths) for _ in range(length)]
    assert [flat[slot] for slot in segments.slots.tolist()] == owners
    assert segments.slots.unique().numel() == sum(lengths)


@given(tokens=st.integers(0, 4096), multiple=st.integers(1, 300), rest=st.integers(0, 300))
def test_padding(tokens: int, multiple: int, rest: int) -> None:
    row_tokens = max(tokens, multiple) + rest
    total = tokens + padding(tokens, multiple, row_tokens)
    assert 0 < total <= row_tokens and 0 <= total - tokens <= multiple
    assert total % multiple == 0 or total == row_tokens
    assert padding(total, multiple, row_tokens) == 0


# ---- a row against its examples, one by one

LENGTHS = [5, 31, 1, 12, 32]  # together more than the model's context, 32
"""Labels of each example."""


class Examples:
    """Random tokens, labels and masks, as single sequences and as one row."""

    def __init__(self, vocab: int) -> None:
        draw = torch.Generator().manual_seed(1)
        self.ids = [torch.randint(0, vocab, (1, length + 1), generator=draw) for length in LENGTHS]
        masks = [torch.rand(1, length, generator=draw) < 0.6 for length in LENGTHS]
        loss_tokens = sum(int(mask.sum()) for mask in masks)
        self.weights = [mask / loss_tokens for mask in masks]

    def alone(self) -> list[MicroBatch]:
        return [MicroBatch(ids[:, :-1], ids[:, 1:], w) for ids, w in zip(self.ids, self.weights, strict=True)]

    def packed(self) -> MicroBatch:
        columns = [(batch.tokens, batch.labels, batch.weights) for batch in self.alone()]
        row = [torch.cat(parts, dim=1) for parts in zip(*columns, strict=True)]
        return MicroBatch(row[0], row[1], row[2], Segments.of(LENGTHS))


def sharp_model(shape: ModelShape, ranks: Ranks, **changes: Any) -> tuple[LanguageModel, ModelShape]:
    """Weights so large that positions and attention matter."""
    shape = shape.model_copy(update={"init_std": 0.2, "rope_base": 500.0, **changes})
    return build_model(shape, tensor_parallel=1, device=ranks.device, seed=5), shape


def our_loss(model: LanguageModel, batches: list[MicroBatch], ranks: Ranks) -> float:
    """Sum of the batches' losses; the gradients add up in `.grad`."""
    model.zero_grad(set_to_none=True)
    total = 0.0
    for batch in batches:
        loss = micro_loss(model, batch, ranks)
        loss.backward()
        total += loss.item()
    return total


def gradients(model: LanguageModel, shape: ModelShape, ranks: Ranks) -> dict[str, Tensor]:
    """Under Hugging Face's names, by the export's own way with weights."""
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.copy_(parameter.grad)
    return gather(model, shape, ranks)


@pytest.mark.parametrize("tied", [True, False])
def test_loss_and_gradients_are_those_of_the_examples_alone(
    shape: ModelShape, ranks: Ranks, data: Path, tmp_path: Path, tied: bool
) -> None:
    """Against our model on one example after another, and against transformers' on the same."""
    model, shape = sharp_model(shape, ranks, tied_embeddings=tied)
    examples = Examples(shape.vocab)
    export(tmp_path / "export", model, shape, ranks, tokenizer_dir(data, TOKENIZER), {"step": 1})
    llama = LlamaForCausalLM.from_pretrained(tmp_path / "export", dtype=torch.float32, attn_implementation="eager")

    alone = our_loss(model, examples.alone(), ranks)
    alone_grads = [parameter.grad for parameter in model.parameters()]
    packed = our_loss(model, [examples.packed()], ranks)
    assert packed == pytest.approx(alone, abs=1e-5)
    for parameter, expected in zip(model.parameters(), alone_grads, strict=True):
        torch.testing.assert_close(parameter.grad, expected, atol=1e-5, rtol=1e-5)

    reference = torch.zeros(())
    for batch in examples.alone():
        losses = F.cross_entropy(llama(batch.tokens).logits[0], batch.labels[0], reduction="none")
        reference = reference + (losses * batch.weights[0]).sum()
    reference.backward()
    assert packed == pytest.approx(reference.item(), abs=1e-5)
    ours = gradients(model, shape, ranks)
    theirs = {name: parameter.grad for name, parameter in llama.named_parameters()}
    assert set(theirs) == set(ours)
    for name, expected in theirs.items():
        assert expected is not None and expected.abs().max() > 1e-3, name
        torch.testing.assert_close(ours[name], expected, atol=1e-5, rtol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


def test_nothing_leaks_from_one_example_to_another(shape: ModelShape, ranks: Ranks) -> None:
    """Other tokens in one example change its own states, from there on, and no bit of another's."""
    model, shape = sharp_model(shape, ranks)
    batch, segments = Examples(shape.vocab).packed(), Segments.of(LENGTHS)
    bounds = segments.boundaries.tolist()
    with torch.no_grad():
        before = model.hidden(batch.tokens, segments)
        for start, end in itertools.pairwise(bounds):
            middle = (start + end) // 2
            tokens = batch.tokens.clone()
            tokens[0, middle] = (tokens[0, middle] + 1) % shape.vocab
            after = model.hidden(tokens, segments)
            changed = (after != before).flatten(1).any(dim=1).nonzero().flatten().tolist()
            assert changed == list(range(middle, end))


def test_positions_begin_again_with_each_example(shape: ModelShape, ranks: Ranks) -> None:
    """Within an example only distances matter, so the output would hardly show it: look at the angles themselves."""
    model, shape = sharp_model(shape, ranks)
    seen: list[Rotary] = []
    model.decoder.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["attention_mask"].rotary), with_kwargs=True
    )
    examples = Examples(shape.vocab)
    model.hidden(examples.packed().tokens, examples.packed().segments)
    frequencies = 500.0 ** -(torch.arange(0, shape.head_dim, 2) / shape.head_dim)
    positions = torch.cat([torch.arange(length) for length in LENGTHS])
    angles = torch.outer(positions.float(), frequencies)
    torch.testing.assert_close(seen[0].cos[:, 0, 0], angles.cos().repeat(1, 2), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(seen[0].sin[:, 0, 0, -shape.head_dim // 2 :], angles.sin(), atol=1e-6, rtol=1e-6)


@pytest.mark.slow
def test_compiled_layers_take_rows_of_any_make_up(shape: ModelShape, ranks: Ranks) -> None:
    """Equal to eager ones; after the second row (and a first row of one segment) nothing is compiled anew."""
    from torch._dynamo.utils import counters

    eager, shape = sharp_model(shape, ranks, layers=1)
    compiled, _ = sharp_model(shape, ranks, layers=1)
    for layer in compiled.decoder.layers:
        layer.compile()
    draw = torch.Generator().manual_seed(0)
    graphs = []
    for lengths in ([5, 31, 7], [12, 32], [9], [3, 3, 3, 3, 20], [30, 1, 1], [17], [8, 9, 10, 11, 12, 13]):
        segments = Segments.of(lengths)
        tokens = torch.randint(0, shape.vocab, (1, sum(lengths)), generator=draw)
        states = [model.hidden(tokens, segments) for model in (eager, compiled)]
        torch.testing.assert_close(states[1], states[0], atol=1e-5, rtol=1e-5)
        for state in states:
            state.square().mean().backward()
        graphs.append(counters["stats"]["unique_graphs"])
    for ours, theirs in zip(compiled.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-4)
    assert graphs[0] > 0 and graphs[2] == graphs[-1], graphs


# ---- whole runs


def fine_tune(data: Path, runs: Path, parent: Path, *overrides: str, processes: int = 1) -> list[dict[str, Any]]:
    options = ["--config", "mini_s_sft.yaml", "--data", str(data), "--runs", str(runs), "--parent", str(parent)]
    launch("sft.py", *options, *TINY_SFT, "batch.sequences=8", *overrides, processes=processes)
    return read_metrics(runs / "t" / "mini_s" / "V1P0" / "seed0" / "sft-mini")


@pytest.mark.slow
def test_fine_tuning_is_the_same_on_two_ranks(data: Path, tmp_path: Path) -> None:
    options = ["--config", "mini_s.yaml", "--study", "t", "--data", str(data), "--runs", str(tmp_path / "parent")]
    launch("pretrain.py", *options, *TINY)
    parent = tmp_path / "parent" / "t" / "mini_s" / "V1P0" / "seed0" / "pt"
    one = fine_tune(data, tmp_path / "one", parent)
    assert len(one) == 8 and one[0]["loss"] - one[-1]["loss"] > 0.5
    for name, overrides, processes in (
        ("rows of one text", ["batch.micro_sequences=1"], 1),
        ("data", ["batch.micro_sequences=1"], 2),
        ("tensor", ["parallel.tensor=2"], 2),
    ):
        other = fine_tune(data, tmp_path / name, parent, *overrides, processes=processes)
        assert len(other) == len(one)
        for ours, theirs in zip(other, one, strict=True):
            assert (ours["step"], ours["tokens"]) == (theirs["step"], theirs["tokens"])
            assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5), name
            assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-3), name
