"""What a step trains on: the order on any number of ranks, and the mask of fine-tuning."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from megatron_cases import ONE
from train_runs import TOKENIZER

from configs.layout import sft_dir, shards_dir, tokenizer_dir
from configs.load import load_mixture
from megatron_train.data import PretrainData, SftData, StepBatch
from megatron_train.ranks.parallel import Ranks
from mixtures.blend.blend import Blend
from mixtures.tokens.sft import SftDataset
from mixtures.tokens.shards import Shards
from mixtures.tokens.tokenizer import Tokenizer

# Ranks without process groups: data needs only the numbers.


def sequences(batches: list[StepBatch]) -> list[tuple[list[int], list[int], list[float]]]:
    """(tokens, labels, weights) of every text, sorted; of packed rows, without what only fills them."""
    found = []
    for batch in batches:
        for micro in batch.micro:
            texts = list(zip(micro.tokens, micro.labels, micro.weights, strict=True))
            if micro.segments is not None:
                (row,) = texts
                lengths = micro.segments.boundaries.diff().tolist()
                texts = list(zip(*(part.split(lengths) for part in row), strict=True))
                texts = [text for text in texts if text[2].any()]
            found += [(tokens.tolist(), labels.tolist(), weights.tolist()) for tokens, labels, weights in texts]
    return sorted(found)


@pytest.fixture(scope="module")
def blend(data: Path) -> Blend:
    weights = load_mixture("V1P0").weights
    shards = {s: Shards.open(shards_dir(data, TOKENIZER, s)) for s in weights}
    return Blend(shards, weights, 32, 7, 64)


@pytest.fixture(scope="module")
def chats(data: Path) -> SftDataset:
    return SftDataset.open(sft_dir(data, TOKENIZER, "sft"), 32)


@pytest.mark.parametrize(("size", "micro"), [(1, 3), (2, 1), (4, 2)])
@pytest.mark.parametrize("kind", ["pretraining", "sft"])
def test_steps_are_the_same_on_any_number_of_ranks(
    blend: Blend, chats: SftDataset, kind: str, size: int, micro: int
) -> None:
    def data(ranks: Ranks, micro: int) -> PretrainData | SftData:
        if kind == "sft":
            return SftData(chats, batch=8, micro=micro, context=32, seed=5, ranks=ranks)
        return PretrainData(blend, batch=8, micro=micro, ranks=ranks)

    ranks = [replace(ONE, world=size, data=r, data_size=size) for r in range(size)]
    for step in (1, 2, 5):
        alone = data(ONE, 8).step(step)
        parts = [data(r, micro).step(step) for r in ranks]
        assert sequences(parts) == sequences([alone])
        assert {part.tokens for part in parts} == {alone.tokens}
        assert sum(sum(w) for *_, w in sequences(parts)) == pytest.approx(1.0, abs=1e-6)


def test_pretraining_takes_the_blend_in_order(blend: Blend) -> None:
    step = PretrainData(blend, batch=4, micro=2, ranks=ONE).step(3)
    expected = [(blend[i][:-1].tolist(), blend[i][1:].tolist()) for i in range(8, 12)]
    found = [
        (tokens.tolist(), labels.tolist())
        for micro in step.micro
        for tokens, labels in zip(micro.tokens, micro.labels, strict=True)
    ]
    assert found == expected
    assert step.tokens == 4 * 32


def test_only_the_assistants_words_carry_loss(chats: SftDataset, data: Path) -> None:
    """And each of them weighs 1 / (loss tokens of the whole step), whichever micro-batch it is in."""
    tokenizer = Tokenizer.load(tokenizer_dir(data, TOKENIZER))
    for step in (1, 2, 3):
        batch = sequences([SftData(chats, batch=6, micro=2, context=32, seed=0, ranks=ONE).step(step)])
        heaviest = max(w for *_, weights in batch for w in weights)
        loss_tokens = sum(w > 0 for *_, weights in batch for w in weights)
        assert heaviest == pytest.approx(1 / loss_tokens)
        for tokens, labels, weights in batch:
            assert {w for w in weights if w} == {heaviest}
            learnt = [label for label, w in zip(labels, weights, strict=True) if w]
            assert set(tokenizer.decode(learnt).replace("<|endoftext|>", "").split()) == {"moon"}
            text = tokenizer.decode([*tokens, labels[-1]])
            assert text.startswith("<|user|>\n") and "<|assistant|>\nmoon" in text
            if tokenizer.eod in labels:
                assert learnt[-1] == tokenizer.eod


class Drawn:
    """Stands for an SftDataset: examples of given lengths, all tokens different, so that each can be told apart."""

    def __init__(self, lengths: list[int]) -> None:
        self.ends = np.cumsum([length + 1 for length in lengths])
        self.lengths = lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        mask = np.arange(self.lengths[i]) % 3 != 1
        return np.arange(self.ends[i] - self.lengths[i] - 1, self.ends[i]), mask


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 16), min_size=1, max_size=24),
    micro=st.integers(1, 4),
    size=st.integers(1, 5),
    device=st.sampled_from(["cpu", "cuda"]),
)
def test_a_step_holds_every_example_once_in_rows_of_equal_number(
    lengths: list[int], micro: int, size: int, device: str
) -> None:
    """Of more ranks than examples, too: some get a row without loss. A GPU's rows are filled up."""
    drawn = Drawn(lengths)
    steps = []
    for rank in range(size):
        ranks = replace(ONE, world=size, data=rank, data_size=size, device=torch.device(device))
        steps.append(SftData(cast(SftDataset, drawn), len(lengths), micro, 16, 0, ranks).step(1))
    assert len({len(step.micro) for step in steps}) == 1
    assert {step.tokens for step in steps} == {sum(lengths)}
    found = sequences(steps)
    examples = [drawn[i] for i in range(len(lengths))]
    loss_tokens = sum(int(mask.sum()) for _, mask in examples)
    expected = [(i[:-1].tolist(), i[1:].tolist(), (m / np.float32(loss_tokens)).tolist()) for i, m in examples]
    assert [(t, x) for t, x, _ in found] == [(t, x) for t, x, _ in sorted(expected)]
    np.testing.assert_allclose([w for *_, ws in found for w in ws], [w for *_, ws in sorted(expected) for w in ws])
    assert sum(w for *_, ws in found for w in ws) == pytest.approx(1.0, abs=1e-6)
    for step in steps:
        for row in step.micro:
            assert row.segments is not None
            shape = (1, int(row.segments.boundaries[-1]))
            assert row.tokens.shape == row.labels.shape == row.weights.shape == shape
            assert 0 < shape[1] <= micro * 16 and row.segments.longest <= 16
            assert device == "cpu" or shape[1] % 16 == 0


def test_every_epoch_shows_each_example_once_in_a_new_order(chats: SftDataset) -> None:
    n = len(chats)
    data = SftData(chats, batch=4, micro=4, context=32, seed=1, ranks=ONE)
    order = [data.example(i) for i in range(3 * n)]
    epochs = [order[i * n : (i + 1) * n] for i in range(3)]
    assert all(Counter(epoch) == Counter(range(n)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert [SftData(chats, 4, 4, 32, 2, ONE).example(i) for i in range(n)] != epochs[0]
