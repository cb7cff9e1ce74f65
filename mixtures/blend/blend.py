"""The order of training: which window of which source is sample i.

In: token shards of several sources, their weights, a context length and a seed. Out: `blend[i]`, the tokens of sample
i, for any i, as a pure function of those inputs. Nothing depends on how many processes read it or where they start,
so a resumed run and a run on more devices see the same samples.

Every sample comes from one source (`mixtures.blend.schedule`: no prefix is a sample or more away from the weights).
Inside a source the documents of each epoch are shuffled and joined into one stream, epoch after epoch, which is cut
every `context_tokens` tokens (`mixtures.blend.index`); a window also shows the first token of the next, its last label.
So each token of an epoch is a label exactly once before the next epoch begins.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from configs.artifacts import fingerprint
from configs.errors import ConfigError, DataError
from configs.layout import index_dir, shards_dir, tokenizer_dir
from configs.load import load_mixture
from configs.schema import WEIGHT_TOLERANCE, TrainConfig
from mixtures.blend.index import Index, Windows, build_index, cached_index, cut
from mixtures.blend.schedule import quotas
from mixtures.tokens.shards import Shards
from mixtures.tokens.tokenizer import check_identity

BLEND_VERSION = 2


class Piece(NamedTuple):
    """A stretch of one document, end-of-document token included."""

    document: int
    """Its number in the source's shards."""
    start: int
    stop: int
    """Tokens start to stop - 1 of it."""


class Blend:
    """Samples 0 to num_samples - 1 of a mixture; a longer blend begins with the same samples.

    `indices` (configs.layout.index_dir) keeps the index for the next process; None builds it in memory. Raises
    ConfigError for weights that are negative or do not sum to 1, DataError where a weighted source has no shards or
    the shards come from different tokenizers.
    """

    def __init__(
        self,
        shards: Mapping[str, Shards],
        weights: Mapping[str, float],
        context_tokens: int,
        seed: int,
        num_samples: int,
        indices: Path | None = None,
    ) -> None:
        used = {source: weight for source, weight in sorted(weights.items()) if weight != 0}
        _check(shards, used)
        self.sources = tuple(used)
        self.quota = quotas(list(used.values()))
        """Target shares of `sources` times their sum; int64 [sources]."""
        self.context_tokens, self.seed = context_tokens, seed
        self.shards = {name: shards[name] for name in self.sources}
        self.fingerprint = fingerprint(
            {
                "version": BLEND_VERSION,
                "shards": {name: shards[name].fingerprint for name in self.sources},
                "quota": self.quota.tolist(),
                "context_tokens": context_tokens,
                "seed": seed,
            }
        )
        """Equal fingerprints mean equal samples; independent of `num_samples` and of where the shards lie."""

        def build() -> Index:
            lengths = {name: x.lengths for name, x in self.shards.items()}
            return build_index(lengths, self.quota, context_tokens, seed, num_samples)

        self.index = cached_index(indices / self.fingerprint, num_samples, build) if indices else build()
        """Arrays behind the samples; a cached one may hold more windows than these samples use."""

    def __len__(self) -> int:
        return len(self.index.source)

    def __getitem__(self, i: int) -> npt.NDArray[np.int64]:
        """Tokens of sample i, int64 [context_tokens + 1]: inputs are `[:-1]`, labels `[1:]`."""
        shards = self.shards[self.source_of(i)]
        return _tokens(shards, self.pieces(i))

    def source_of(self, i: int) -> str:
        if not 0 <= i < len(self):
            raise IndexError(f"sample {i} of {len(self)}")
        return self.sources[self.index.source[i]]

    def window_of(self, i: int) -> int:
        """Number of the window of its source's stream that sample i is."""
        return int(self.index.window[i])

    def pieces(self, i: int) -> Iterator[Piece]:
        """The documents that sample i is made of, in order."""
        return _pieces(self.shards[self.source_of(i)], self.index.windows[self.source_of(i)], self.window_of(i))

    def tokens(self) -> dict[str, int]:
        """Labels trained on, by source."""
        counts = np.bincount(self.index.source, minlength=len(self.sources))
        return {name: int(n) * self.context_tokens for name, n in zip(self.sources, counts, strict=True)}


def open_shards(config: TrainConfig, data: Path) -> dict[str, Shards]:
    """Shards of the sources that the config's mixture weights.

    Raises ArtifactError where some are missing, or hold ids that the tokenizer no longer gives.
    """
    weights = load_mixture(config.data.mixture).weights
    found = {s: Shards.open(shards_dir(data, config.data.tokenizer, s)) for s, weight in weights.items() if weight}
    tokenizer = tokenizer_dir(data, config.data.tokenizer)
    if (tokenizer / "tokenizer.json").is_file():
        for shards in found.values():
            check_identity(shards.manifest, shards.folder, tokenizer)
    return found


def open_blend(config: TrainConfig, shards: Mapping[str, Shards], data: Path) -> Blend:
    """The blend that a pretraining run of `config` trains on; its index is kept under `data`."""
    weights = load_mixture(config.data.mixture).weights
    num_samples = config.pretraining_steps * config.batch.sequences
    return Blend(shards, weights, config.model.context_tokens, config.seed, num_samples, index_dir(data))


def samples_of_step(step: int, batch: int) -> range:
    """The samples that optimizer step 1, 2, ... of `batch` sequences trains on."""
    return range((step - 1) * batch, step * batch)


def validation_samples(shards: Shards, context_tokens: int, num: int) -> npt.NDArray[np.int64]:
    """Held-out windows of a source, int64 [n, context_tokens + 1], from its shuffled validation documents.

    The same for every run: no seed. n is `num`, or fewer where the held-out text is shorter, so that nothing counts
    twice; but at least one, which repeats text that does not fill a window.
    """
    if num <= 0:
        return np.empty((0, context_tokens + 1), dtype=np.int64)
    held_out = shards.validation
    assert held_out is not None, "shards always hold documents out"
    count = min(num, max(1, (held_out.num_tokens - 1) // context_tokens))
    windows = cut(held_out.lengths, count, context_tokens, "validation", 0)
    return np.stack([_tokens(held_out, _pieces(held_out, windows, window)) for window in range(count)])


def _pieces(shards: Shards, windows: Windows, window: int) -> Iterator[Piece]:
    (first, skip), (last, final) = windows.starts[window : window + 2].tolist()
    for place in range(first, last + 1):
        document = int(windows.documents[place])
        stop = final + 1 if place == last else int(shards.lengths[document])
        yield Piece(document, skip if place == first else 0, stop)


def _tokens(shards: Shards, pieces: Iterator[Piece]) -> npt.NDArray[np.int64]:
    return np.concatenate([shards.document(*piece) for piece in pieces], dtype=np.int64)


def _check(shards: Mapping[str, Shards], used: Mapping[str, float]) -> None:
    negative = {source: weight for source, weight in used.items() if not weight > 0}
    if negative or abs(math.fsum(used.values()) - 1) > WEIGHT_TOLERANCE:
        raise ConfigError(f"weights {dict(used)} must be positive and sum to 1 (they sum to {sum(used.values()):.6g})")
    missing = [source for source in used if source not in shards]
    if missing:
        raise DataError(
            f"no token shards of {', '.join(missing)}, which the mixture weights",
            valid=f"sources at hand: {', '.join(sorted(shards)) or 'none'}",
            hint="python -m mixtures.tokenize --help",
        )
    tokenizers: dict[Any, str] = {shards[source].manifest["tokenizer"]: source for source in used}
    if len(tokenizers) > 1:
        raise DataError(
            f"shards of {' and '.join(tokenizers.values())} come from different tokenizers",
            where=shards[next(iter(used))].folder.parent,
            hint="make them again: python -m mixtures.tokenize --help",
        )
