"""Exactness of the blend: every token once an epoch, and an order that nothing disturbs."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_shards import tokenize_source

from configs.errors import ConfigError, DataError
from configs.schema import SourceSpec
from mixtures.blend.blend import Blend, samples_of_step, validation_samples
from mixtures.blend.index import cut, shuffled
from mixtures.sources.source import Source
from mixtures.tokens.shards import Shards
from mixtures.tokens.tokenizer import Tokenizer

GOLDEN_SHUFFLE = [8, 2, 9, 6, 5, 4, 1, 0, 3, 7]


class MemoryShards:
    """Documents of given lengths in memory; token ids count up, so that every token is distinct."""

    def __init__(self, lengths: list[int], tokenizer: str = "t", first: int = 0) -> None:
        self.lengths = np.array(lengths, dtype=np.int32)
        self.num_documents = len(lengths)
        self.num_tokens = int(self.lengths.sum())
        self._ends = np.cumsum(self.lengths)
        self._first = first
        self.manifest = {"tokenizer": tokenizer}
        self.fingerprint = hashlib.sha256(repr((lengths, first)).encode()).hexdigest()
        self.folder = Path("memory")
        self.validation: Any = None

    def document(self, i: int, start: int = 0, stop: int | None = None) -> npt.NDArray[np.int32]:
        whole = np.arange(self._ends[i] - self.lengths[i], self._ends[i], dtype=np.int32) + self._first
        return whole[start:stop]


def memory(lengths: list[int], **options: Any) -> Any:
    return MemoryShards(lengths, **options)


def stream(shards: Any, *key: object, start: int = 0, count: int) -> npt.NDArray[np.int64]:
    """Tokens start to start + count - 1 of the shuffled epochs, joined the slow way."""
    epochs: list[npt.NDArray[np.int64]] = []
    while sum(map(len, epochs)) < start + count:
        order = shuffled(shards.num_documents, *key, len(epochs))
        epochs.append(np.concatenate([shards.document(int(i)) for i in order]))
    return np.concatenate(epochs)[start : start + count]


documents = st.lists(st.integers(1, 40), min_size=1, max_size=12)


@settings(deadline=None)
@given(lengths=documents, context=st.integers(1, 60), epochs=st.integers(1, 4))
def test_windows_reproduce_the_stream_and_use_each_token_once_an_epoch(
    lengths: list[int], context: int, epochs: int
) -> None:
    shards = memory(lengths)
    total = shards.num_tokens
    num = (epochs * total) // context + 1
    blend = Blend({"a": shards}, {"a": 1.0}, context, seed=3, num_samples=num)
    windows = np.stack([blend[i] for i in range(num)])
    assert windows.shape == (num, context + 1) and windows.dtype == np.int64
    # A window's last label is the next window's first input: nothing is skipped, nothing is seen twice.
    np.testing.assert_array_equal(windows[:-1, -1], windows[1:, 0])
    stream = np.concatenate([windows[:, :-1].ravel(), windows[-1:, -1]])
    np.testing.assert_array_equal(windows[:, 1:].ravel(), stream[1:])
    for epoch in range(epochs):
        tokens = stream[epoch * total : (epoch + 1) * total]
        assert sorted(tokens) == list(range(total))
        # Documents stay whole: cut at their first tokens, the stream falls apart into them.
        firsts = np.cumsum([0, *lengths[:-1]])
        pieces = np.split(tokens, np.flatnonzero(np.isin(tokens, firsts))[1:])
        assert {tuple(piece) for piece in pieces} == {tuple(shards.document(i)) for i in range(len(lengths))}


def test_epochs_sources_and_seeds_shuffle_differently() -> None:
    lengths = np.full(50, 5, dtype=np.int32)
    orders = set()
    for name in ("a", "b"):
        for seed in (0, 1):
            documents = cut(lengths, 100, 5, name, seed).documents
            orders |= {tuple(documents[:50]), tuple(documents[50:100])}
    assert len(orders) == 8


def test_the_shuffle_is_pinned() -> None:
    """These values may never change: a run that is resumed elsewhere must see the same samples."""
    assert shuffled(10, "wikipedia", 0, 0).tolist() == GOLDEN_SHUFFLE


@settings(deadline=None, max_examples=100)
@given(lengths=documents, context=st.integers(1, 60), num=st.integers(1, 60))
def test_windows_are_cut_from_the_joined_epochs(lengths: list[int], context: int, num: int) -> None:
    shards = memory(lengths)
    blend = Blend({"a": shards}, {"a": 1.0}, context, seed=3, num_samples=num)
    joined = stream(shards, "a", 3, count=num * context + 1)
    for i in range(num):
        np.testing.assert_array_equal(blend[i], joined[i * context : (i + 1) * context + 1])
        pieces = list(blend.pieces(i))
        assert all(0 <= start < stop <= lengths[document] for document, start, stop in pieces)
        assert sum(stop - start for _, start, stop in pieces) == context + 1
    starts, places = blend.index.windows["a"].starts, blend.index.windows["a"].documents
    assert len(starts) == num + 1 and len(places) == starts[-1, 0] + 1, "no document beyond the last label"


def three_sources() -> dict[str, Any]:
    return {
        "books": memory([7, 30, 2, 19], first=0),
        "code": memory([11] * 20, first=1000),
        "web": memory([5, 9, 1, 40] * 9, first=5000),
    }


WEIGHTS = {"web": 0.65, "code": 0.25, "books": 0.1, "unused": 0.0}


def test_sources_advance_by_their_own_samples_only() -> None:
    shards = three_sources()
    blend = Blend(shards, WEIGHTS, 16, seed=1, num_samples=200)
    seen = dict.fromkeys(shards, 0)
    for i in range(len(blend)):
        source = blend.source_of(i)
        expected = stream(shards[source], source, 1, start=seen[source] * 16, count=17)
        assert blend.window_of(i) == seen[source]
        np.testing.assert_array_equal(blend[i], expected)
        seen[source] += 1
    assert seen == {"web": 130, "code": 50, "books": 20}
    assert blend.tokens() == {source: count * 16 for source, count in seen.items()}
    tokens = blend.tokens()
    shares = {name: n / sum(tokens.values()) for name, n in tokens.items()}
    assert shares == pytest.approx({"web": 0.65, "code": 0.25, "books": 0.1})
    epochs = {name: n / blend.shards[name].num_tokens for name, n in tokens.items()}
    assert epochs == pytest.approx({"books": 320 / 58, "code": 800 / 220, "web": 2080 / 495})


@settings(deadline=None, max_examples=25)
@given(
    sources=st.lists(st.tuples(st.floats(-6, 0), documents), min_size=1, max_size=12),
    context=st.integers(1, 40),
    seed=st.integers(0, 2**31 - 1),
    steps=st.integers(1, 12),
    share=st.integers(1, 4),
    world=st.integers(1, 5),
)
def test_any_world_reads_one_exact_order(
    sources: list[tuple[float, list[int]]], context: int, seed: int, steps: int, share: int, world: int
) -> None:
    """Weights down to 1e-6, sources of a few tokens that end in the middle of a step and begin again."""
    raw = np.power(10.0, [exponent for exponent, _ in sources])
    weights = {f"s{i}": float(weight) for i, weight in enumerate(raw / raw.sum())}
    shards = {f"s{i}": memory(lengths, first=10_000 * i) for i, (_, lengths) in enumerate(sources)}
    batch = share * world
    order = []
    for step in range(1, steps + 1):
        for rank in range(world):
            blend = Blend(shards, weights, context, seed, step * batch + rank)  # each of another length
            mine = samples_of_step(step, batch)[rank * share : (rank + 1) * share]
            order += [(blend.source_of(i), blend[i].tolist()) for i in mine]
    seen = dict.fromkeys(shards, 0)
    for n, (source, tokens) in enumerate(order, start=1):
        expected = stream(shards[source], source, seed, start=seen[source] * context, count=context + 1)
        assert tokens == expected.tolist()
        seen[source] += 1
        assert all(abs(seen[name] - n * weight) < 1 for name, weight in weights.items())


def test_readers_in_any_number_and_order_see_the_same_samples() -> None:
    whole = [Blend(three_sources(), WEIGHTS, 16, 1, 120)[i] for i in range(120)]
    for readers in (2, 3):
        for reader in range(readers):
            blend = Blend(three_sources(), WEIGHTS, 16, 1, 500)
            for i in reversed(range(reader, 120, readers)):
                np.testing.assert_array_equal(blend[i], whole[i])


def test_the_fingerprint_changes_with_what_changes_samples_and_nothing_else() -> None:
    def make(**changes: Any) -> str:
        options = {"shards": three_sources(), "weights": WEIGHTS, "context_tokens": 16, "seed": 1, "num_samples": 9}
        return Blend(**(options | changes)).fingerprint

    base = make()
    assert make(num_samples=99) == base
    assert make(weights=dict(reversed(WEIGHTS.items()))) == base
    assert make(weights={"web": 0.65, "code": 0.25, "books": 0.1}) == base
    changed = [
        make(seed=2),
        make(context_tokens=17),
        make(weights={"web": 0.6, "code": 0.3, "books": 0.1}),
        make(shards=three_sources() | {"books": memory([7, 30, 2, 20])}),
    ]
    assert len({base, *changed}) == 5


def test_steps_take_consecutive_samples() -> None:
    assert [list(samples_of_step(step, 3)) for step in (1, 2)] == [[0, 1, 2], [3, 4, 5]]


def test_indices_out_of_range_are_refused() -> None:
    blend = Blend({"a": memory([9])}, {"a": 1.0}, 4, 0, 3)
    assert len(list(blend)) == 3  # type: ignore[call-overload]
    for i in (-1, 3):
        with pytest.raises(IndexError):
            blend[i]


def test_impossible_blends_are_refused() -> None:
    shards = three_sources()
    with pytest.raises(ConfigError, match=r"must be positive and sum to 1 \(they sum to 0\.9\)"):
        Blend(shards, {"web": 0.9}, 16, 0, 1)
    with pytest.raises(ConfigError, match="must be positive"):
        Blend(shards, {"web": 1.5, "code": -0.5}, 16, 0, 1)
    with pytest.raises(DataError, match=r"no token shards of arxiv.*\n.*books, code, web"):
        Blend(shards, {"web": 0.5, "arxiv": 0.5}, 16, 0, 1)
    mixed = shards | {"code": memory([3], tokenizer="other")}
    with pytest.raises(DataError, match="shards of code and web come from different tokenizers"):
        Blend(mixed, {"web": 0.5, "code": 0.5}, 16, 0, 1)


@settings(deadline=None, max_examples=50)
@given(lengths=documents, context=st.integers(1, 80), num=st.integers(0, 40))
def test_validation_counts_no_token_twice(lengths: list[int], context: int, num: int) -> None:
    shards = memory([1])
    shards.validation = memory(lengths)
    windows = validation_samples(shards, context, num)
    full = max(1, (sum(lengths) - 1) // context)
    assert windows.shape == (min(num, full), context + 1)
    labels = windows[:, 1:].ravel().tolist()
    assert len(set(labels)) == min(len(labels), sum(lengths))


DIGEST = """
import hashlib, sys
from pathlib import Path
from mixtures.blend.blend import Blend
from mixtures.tokens.shards import Shards

folder = Path(sys.argv[1])
shards = {name: Shards.open(folder / name) for name in ("web", "code")}
blend = Blend(shards, {"web": 0.7, "code": 0.3}, 32, 5, 300)
print(blend.fingerprint, hashlib.sha256(b"".join(blend[i].tobytes() for i in range(300))).hexdigest())
"""


def test_two_processes_blend_the_same_files_alike(
    tokenizer: Tokenizer, texts: Any, write_rows: Any, tmp_path: Path
) -> None:
    for seed, name in enumerate(("web", "code")):
        write_rows(tmp_path / "documents" / "corpora" / name / "0.parquet", text=texts(150, seed))
        source = Source(name, SourceSpec(kind="web", display=name, folder=name), tmp_path / "documents")
        tokenize_source(source, tokenizer, tmp_path / name)
    outputs = {
        subprocess.run(
            [sys.executable, "-c", DIGEST, str(tmp_path)],
            env=os.environ | {"PYTHONHASHSEED": salt},
            capture_output=True,
            check=True,
        ).stdout
        for salt in ("1", "2")
    }
    assert len(outputs) == 1
    shards = {name: Shards.open(tmp_path / name) for name in ("web", "code")}
    blend = Blend(shards, {"web": 0.7, "code": 0.3}, 32, 5, 300)
    digest = hashlib.sha256(b"".join(blend[i].tobytes() for i in range(300))).hexdigest()
    assert outputs == {f"{blend.fingerprint} {digest}\n".encode()}
