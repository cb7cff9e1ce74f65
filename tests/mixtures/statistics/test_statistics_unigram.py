"""Unigram models against a token-by-token computation with Counter."""

from __future__ import annotations

import math
import random
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from mixtures.statistics.batch import Batch, text_hash
from mixtures.statistics.unigram import BACKGROUND_SHARE, COLUMNS, HES_SHARE, UNIFORM_SHARE, Pool, TokenCounts
from mixtures.tokens.tokenizer import Tokenizer

VOCAB = 30
Halves = tuple[Counter[int], Counter[int]]


@pytest.fixture(scope="module")
def sources() -> list[Halves]:
    """Three sources of different sizes whose halves come from the same law; one token occurs in one half only."""
    rng = random.Random(0)
    laws = [[1 / (1 + (token * step) % VOCAB) for token in range(VOCAB - 2)] for step in (1, 7, 11)]
    drawn = [
        tuple(Counter(rng.choices(range(VOCAB - 2), law, k=size)) for _ in range(2))
        for law, size in zip(laws, (400, 3_000, 900), strict=True)
    ]
    drawn[0][0][VOCAB - 2] = 3
    return drawn  # type: ignore[return-value]


@pytest.fixture(scope="module")
def counts(sources: list[Halves]) -> np.ndarray:
    return np.array([[[half[token] for token in range(VOCAB)] for half in halves] for halves in sources])


def frequency(tokens: Counter[int], token: int) -> Fraction:
    return Fraction(tokens[token], tokens.total())


def background(sources: list[Halves], half: int, token: int) -> float:
    pool = sum(frequency(halves[half], token) for halves in sources) / len(sources)
    return (1 - UNIFORM_SHARE) * float(pool) + UNIFORM_SHARE / VOCAB


def brute_force(sources: list[Halves], text: int, model: int | None) -> float:
    """Token by token: each half of the text under the model of the other half; None: the pool's model."""
    nats, tokens = 0.0, 0
    for half in (0, 1):
        for token in sources[text][half].elements():
            probability = background(sources, 1 - half, token)
            if model is not None:
                own = float(frequency(sources[model][1 - half], token))
                probability = (1 - BACKGROUND_SHARE) * own + BACKGROUND_SHARE * probability
            nats -= math.log(probability)
            tokens += 1
    return nats / tokens


def test_cross_entropies_are_those_of_counting(sources: list[Halves], counts: np.ndarray) -> None:
    pool = Pool(counts)
    for text in range(3):
        found = pool.cross_entropies(counts[text])
        assert found == pytest.approx([brute_force(sources, text, model) for model in range(3)], rel=1e-12)
        assert found.argmin() == text


def test_columns_relative_to_the_pool_are_those_of_counting(sources: list[Halves], counts: np.ndarray) -> None:
    pool = Pool(counts)
    together = [a + b for a, b in sources]
    share = {token: sum(frequency(halves, token) for halves in together) / 3 for token in range(VOCAB)}
    rare, mass = set(), Fraction(0)
    for token in sorted(share, key=lambda t: (share[t], t)):
        mass += share[token]
        if mass <= Fraction(1, 5):
            rare.add(token)
    surprisal = {t: -math.log((1 - UNIFORM_SHARE) * float(share[t]) + UNIFORM_SHARE / VOCAB) for t in share}
    assert pool.threshold_nats == pytest.approx(min(surprisal[token] for token in rare), rel=1e-12)
    for source, tokens in enumerate(together):
        values = pool.values(counts[source], source, utf8_bytes=5_000, documents=7)
        assert list(values) == list(COLUMNS)
        assert values["own_cross_entropy"] == pytest.approx(brute_force(sources, source, source), rel=1e-12)
        in_pool = brute_force(sources, source, None)
        assert values["pool_cross_entropy"] == pytest.approx(in_pool, rel=1e-12)
        bits = in_pool * tokens.total() / math.log(2)
        assert values["pool_bits_per_byte"] == pytest.approx(bits / 5_000, rel=1e-12)
        high = sum(n for token, n in tokens.items() if token in rare) / tokens.total()
        assert values["high_entropy_share"] == pytest.approx(high, rel=1e-12)
        most = sorted((surprisal[token] for token in tokens.elements()), reverse=True)
        whole, part = divmod(HES_SHARE * tokens.total(), 1)
        expected = sum(most[: int(whole)]) + part * most[int(whole)]
        assert values["high_entropy_sum"] == pytest.approx(expected / 7, rel=1e-9)


def test_high_entropy_tokens_are_a_fifth_of_the_pool(counts: np.ndarray) -> None:
    pool = Pool(counts)
    shares = [pool.values(counts[source], source, 1, 1)["high_entropy_share"] for source in range(3)]
    assert 0.1 < np.mean([share for share in shares if share is not None]) <= 0.2


def test_a_model_is_never_asked_about_text_it_was_made_from() -> None:
    """Two halves without a common token: a model that had seen its text would be far better than the background."""
    counts = np.zeros((2, 2, 8), dtype=np.int64)
    counts[0, 0, 0] = counts[0, 1, 1] = 100
    counts[1, :, 2:] = 20
    own = Pool(counts).cross_entropies(counts[0])[0]
    assert own > math.log(8)


def test_a_source_with_one_document_or_none_stays_finite() -> None:
    counts = np.zeros((3, 2, 5), dtype=np.int64)
    counts[0, 0, 0] = 10
    counts[1] = 4
    pool = Pool(counts)
    assert np.isfinite([pool.cross_entropies(counts[source]) for source in range(3)]).all()
    assert set(pool.values(counts[2], 2, 0, 0).values()) == {None}
    assert all(v is not None and math.isfinite(v) for v in pool.values(counts[0], 0, 10, 1).values())


def test_a_document_and_its_copy_lie_in_one_half(texts: object, tokenizer: Tokenizer) -> None:
    documents = texts(40, 5)  # type: ignore[operator]
    counts = TokenCounts().of(Batch(documents, tokenizer))["counts"]
    assert counts.shape == (2, tokenizer.vocab_size)
    expected = np.zeros_like(counts)
    for text in documents:
        np.add.at(expected[text_hash(text.encode()) & 1], tokenizer.encode(text), 1)
    np.testing.assert_array_equal(counts, expected)
    assert counts.sum(axis=1).min() > 0.2 * counts.sum()
    twice = TokenCounts().of(Batch(documents * 2, tokenizer))["counts"]
    np.testing.assert_array_equal(twice, 2 * counts)
