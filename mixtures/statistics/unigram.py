"""Unigram models of the sources: how far apart sources are, and how unusual their tokens.

In: how often each token occurs in each half of each source (a document's half follows from the hash of its text, so
copies of a text lie in one half). Out: cross-entropies in nats a token. A model made from one half measures only text
of the other; so a source's own cross-entropy is as honest as those between sources.

The pool is every source with equal weight, however much text of it was read.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import numpy.typing as npt

from mixtures.statistics.batch import Batch
from mixtures.statistics.features import Column, Sums, Values

BACKGROUND_SHARE = 0.05
"""Share of the pool's model in a source's model, so that no token of the pool is impossible."""
UNIFORM_SHARE = 0.01
"""Share of the pool's model that is spread over the vocabulary."""
HIGH_ENTROPY_SHARE = 0.2
"""Share of the pool's tokens that are called high-entropy, as in Wang et al. (arXiv 2506.01939)."""
HES_SHARE = 0.005
"""Share of the tokens that are summed, as in Li et al. (arXiv 2605.22389)."""

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

COLUMNS: Mapping[str, Column] = {
    "own_cross_entropy": Column("nats/token", "under the unigram model of the source's other half"),
    "pool_cross_entropy": Column("nats/token", "under the unigram model of the pool's other half"),
    "pool_bits_per_byte": Column("bits/byte", "the same for each byte of UTF-8"),
    "high_entropy_share": Column(
        "share", f"of the tokens, those among the pool's rarest, which make up {HIGH_ENTROPY_SHARE:.0%} of its tokens"
    ),
    "high_entropy_sum": Column(
        "nats/document",
        f"surprisal, under the pool's unigram model, of the {HES_SHARE:.1%} most surprising tokens, for each document",
    ),
}
"""Relative to the pool, so they are known once every source has been read."""


class TokenCounts:
    """The counts behind the models; its columns come from `Pool.values`."""

    name = "unigrams"
    columns: Mapping[str, Column] = {}

    def of(self, batch: Batch) -> Sums:
        tokens = batch.tokens
        half = np.repeat(batch.hashes & np.uint64(1), tokens.lengths).astype(np.int64)
        both = np.bincount(half * tokens.vocab + tokens.ids, minlength=2 * tokens.vocab)
        return {"counts": both.reshape(2, tokens.vocab)}

    def values(self, sums: Sums) -> Values:
        return {}


class Pool:
    """Unigram models of several sources and of all of them together.

    counts: int64 [sources, 2 halves, vocabulary].
    """

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._vocab = counts.shape[2]

    def cross_entropies(self, counts: Counts) -> Floats:
        """Nats a token, [sources]: of a text whose halves hold `counts` [2, vocabulary], under each source's model."""
        log_models = self._log_models
        nats = -sum(log_models[:, 1 - half] @ counts[half] for half in (0, 1))
        return np.asarray(nats / max(1, counts.sum()), dtype=np.float64)

    def values(self, counts: Counts, source: int, utf8_bytes: int, documents: int) -> Values:
        """COLUMNS of a text of the source numbered `source`; None without any token."""
        tokens = int(counts.sum())
        if not tokens:
            return dict.fromkeys(COLUMNS)
        pool_nats = -sum(float(self._log_background[1 - half] @ counts[half]) for half in (0, 1))
        both = counts.sum(axis=0)
        return {
            "own_cross_entropy": float(self.cross_entropies(counts)[source]),
            "pool_cross_entropy": pool_nats / tokens,
            "pool_bits_per_byte": pool_nats / np.log(2) / utf8_bytes,
            "high_entropy_share": float(both[self.rare].sum()) / tokens,
            "high_entropy_sum": self._nats_of_most_surprising(both, HES_SHARE * tokens) / documents,
        }

    @cached_property
    def rare(self) -> npt.NDArray[np.bool_]:
        """The rarest tokens, as many as make up at most HIGH_ENTROPY_SHARE of the pool; bool [vocabulary]."""
        share = self._frequencies(self._counts.sum(axis=1)).mean(axis=0)
        order = np.argsort(share, kind="stable")
        rare = np.zeros(self._vocab, dtype=np.bool_)
        rare[order[np.cumsum(share[order]) <= HIGH_ENTROPY_SHARE]] = True
        return rare

    @property
    def threshold_nats(self) -> float | None:
        """Surprisal of the commonest of the `rare` tokens; None where no token is rare enough."""
        return float(self._surprisal[self.rare].min()) if self.rare.any() else None

    def _nats_of_most_surprising(self, counts: Counts, tokens: float) -> float:
        order = np.argsort(-self._surprisal, kind="stable")
        before = np.cumsum(counts[order]) - counts[order]
        taken = np.clip(tokens - before, 0, counts[order])
        return float(taken @ self._surprisal[order])

    @cached_property
    def _surprisal(self) -> Floats:
        """Surprisal of each token under the pool's model, made from both halves; [vocabulary]."""
        frequencies = self._frequencies(self._counts.sum(axis=1)).mean(axis=0)
        return np.asarray(-np.log(self._with_uniform(frequencies)), dtype=np.float64)

    @cached_property
    def _log_background(self) -> Floats:
        """[2, vocabulary]"""
        return np.log(self._with_uniform(self._frequencies(self._counts).mean(axis=0)))

    @cached_property
    def _log_models(self) -> Floats:
        """[sources, 2, vocabulary]"""
        background = np.exp(self._log_background)
        own = self._frequencies(self._counts)
        empty = self._counts.sum(axis=2, keepdims=True) == 0
        return np.log(np.where(empty, background, (1 - BACKGROUND_SHARE) * own + BACKGROUND_SHARE * background))

    def _with_uniform(self, frequencies: Floats) -> Floats:
        # Normalised again, because a source without text has no frequencies.
        total = frequencies.sum(axis=-1, keepdims=True)
        frequencies = np.where(total > 0, frequencies / np.maximum(total, 1e-300), 1 / self._vocab)
        return (1 - UNIFORM_SHARE) * frequencies + UNIFORM_SHARE / self._vocab

    @staticmethod
    def _frequencies(counts: Counts) -> Floats:
        """Shares of each token; zeros where there is no text."""
        return np.asarray(counts / np.maximum(1, counts.sum(axis=-1, keepdims=True)), dtype=np.float64)
