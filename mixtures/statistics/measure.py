"""One pass over a unit: its documents to sums in a file, which a rerun finds again.

In: a unit of a source, a tokenizer, features. Out: `sums/<source>/00000.npz` with the sums of every feature and the
fingerprint of what they were made from.
"""

from __future__ import annotations

import functools
import json
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs.artifacts import atomic_file, fingerprint
from mixtures.parallel import batches_of
from mixtures.sources.source import Dropped, Unit
from mixtures.statistics.batch import Batch, text_hash
from mixtures.statistics.features import Characters, Code, Compression, Diversity, Feature, Sizes, Sums, merge
from mixtures.statistics.style import Style
from mixtures.statistics.unigram import TokenCounts
from mixtures.tokens.tokenizer import Tokenizer

MEASURE_VERSION = 1
"""Rises whenever a feature's sums change their meaning."""
BATCH_CHARACTERS = 2_000_000

FEATURES: tuple[Feature, ...] = (
    Sizes(),
    Compression(),
    Characters(),
    Code(),
    Diversity(),
    Style(),
    TokenCounts(),
)

FeatureSums = dict[str, Sums]
"""Feature name -> its sums."""


@dataclass(frozen=True)
class Job:
    unit: Unit
    path: Path
    """Where the sums go."""
    tokenizer: Path
    tokenizer_sha256: str
    share: float
    """Share of the documents that is measured, chosen by the hash of their text."""
    features: Sequence[Feature] = FEATURES
    added_tokens: tuple[str, ...] = ()
    """What the tokenizer finds in text besides its entries (`Tokenizer.recognised`)."""


@dataclass(frozen=True)
class Measured:
    """The file that a job left."""

    made_from: dict[str, Any]
    dropped: dict[str, int]
    """Rows left out, by reason."""
    utf8_bytes: int
    kept: bool
    """An earlier run had left it."""


def measure_unit(job: Job) -> Measured:
    """Measure a unit, unless its file already holds the sums of the same documents, tokenizer and features."""
    made_from = {
        "version": MEASURE_VERSION,
        "features": [feature.name for feature in job.features],
        "rows": job.unit.inputs(),
        "tokenizer": job.tokenizer_sha256,
        "share": job.share,
    }
    if job.added_tokens:
        made_from["added_tokens"] = list(job.added_tokens)
    key = fingerprint(made_from)
    stored = _stored(job.path)
    if stored is not None and stored["key"] == key:
        return Measured(made_from, stored["dropped"], stored["utf8_bytes"], kept=True)
    dropped = Dropped()
    texts = (document.text for document in job.unit.documents(dropped))
    sums = measure(sampled(texts, job.share), _tokenizer(job.tokenizer, job.tokenizer_sha256), job.features)
    header: dict[str, Any] = {
        "key": key,
        "dropped": dict(dropped.counts),
        "utf8_bytes": int(sums["sizes"]["utf8_bytes"]),
    }
    with atomic_file(job.path) as stream:
        arrays: dict[str, Any] = {
            f"{feature}/{name}": array for feature, own in sums.items() for name, array in own.items()
        }
        np.savez_compressed(stream, header=np.array(json.dumps(header)), **arrays)
    return Measured(made_from, header["dropped"], header["utf8_bytes"], kept=False)


def measure(texts: Iterable[str], tokenizer: Tokenizer, features: Sequence[Feature] = FEATURES) -> FeatureSums:
    """The sums of `texts`, in memory that does not grow with them."""
    sums = _of(Batch([], tokenizer), features)
    for batch in batches_of(texts, len, BATCH_CHARACTERS):
        sums = merge_all(sums, _of(Batch(batch, tokenizer), features))
    return sums


def merge_all(a: FeatureSums, b: FeatureSums) -> FeatureSums:
    return {feature: merge(a[feature], b[feature]) for feature in a}


def read_sums(path: Path) -> FeatureSums:
    sums: FeatureSums = {}
    with np.load(path) as arrays:
        for name in arrays.files:
            feature, separator, key = name.partition("/")
            if separator:
                sums.setdefault(feature, {})[key] = arrays[name]
    return sums


def sampled(texts: Iterable[str], share: float) -> Iterator[str]:
    """The texts whose hash lies in the lowest `share`: a larger share takes the same ones and more."""
    for text in texts:
        # The lowest bit, which splits the halves, plays no part.
        if share >= 1 or text_hash(text.encode()) < share * 2**64:
            yield text


def _of(batch: Batch, features: Sequence[Feature]) -> FeatureSums:
    return {feature.name: feature.of(batch) for feature in features}


def _stored(path: Path) -> dict[str, Any] | None:
    """The header of a file of sums; None where there is none, or it is damaged (then it is made again)."""
    try:
        with np.load(path) as arrays:
            header: dict[str, Any] = json.loads(str(arrays["header"]))
            for name in arrays.files:
                arrays[name]  # its checksum
            return header
    except (OSError, EOFError, ValueError, KeyError, zlib.error, zipfile.BadZipFile):
        return None


@functools.lru_cache(maxsize=1)
def _tokenizer(folder: Path, sha256: str) -> Tokenizer:
    """Loaded once in each worker."""
    return Tokenizer.load(folder)
