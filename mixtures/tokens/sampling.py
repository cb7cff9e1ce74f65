"""Which documents of a large corpus a study reads: no more than it can train on, and yet not only its head.

In: the tokens wanted of a source, and about how many it has. Out: an order of its units and a fraction of their
documents, both by hash, so that they are the same on every machine.

Units come in the order of the hash of their name; of each, those documents are taken whose hash lies in the lowest
fraction f, where f is such that SPREAD times the tokens wanted lie in the whole corpus; units are taken until their
training tokens suffice. So about 1 / SPREAD of the files is read, whatever order they are in, and f of each. The
shortest prefix of units that suffices is kept, which no number of workers changes; a unit that suffices alone ends
there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from configs.artifacts import fingerprint
from configs.documents import tokens_needed
from configs.schema import SourceSpec, StudyConfig
from configs.token_bytes import BYTES_PER_TOKEN

if TYPE_CHECKING:
    from mixtures.sources.source import Source, Unit

SPREAD = 4
HASHES = 2**64


class Sample(NamedTuple):
    """How much of a source is wanted."""

    tokens: int
    """Training tokens that suffice."""
    fraction: float
    """Share of the documents of a unit that is taken; in (0, 1]."""

    @classmethod
    def of(cls, tokens: int, available: int | None) -> Sample:
        """The sample that reads about 1 / SPREAD of a corpus of `available` tokens (None: not known, take all)."""
        return cls(tokens, min(1.0, SPREAD * tokens / available) if available else 1.0)


def sampling_order(units: Iterable[Unit]) -> list[Unit]:
    """Units in the order in which samples take them."""
    return sorted(units, key=lambda unit: fingerprint(unit.name))


def sampling_hash(utf8: bytes) -> int:
    """A hash of a document, below HASHES; independent of the hash that holds documents out."""
    return int.from_bytes(hashlib.blake2b(utf8, digest_size=8, person=b"sample").digest(), "big")


def sample_of(study: StudyConfig, source: Source) -> Sample | None:
    """What the study takes of a source: None, all of it, for local documents unless data.sample says otherwise.

    The size of a source on the Hub is what its publisher states. Otherwise it is the files' bytes at 4 to a token; for
    compressed files that is too small a size and so too large a sample, which reads fewer files.
    """
    if not source.streamed and not study.data.sample:
        return None
    assert isinstance(source.spec, SourceSpec)
    available = source.spec.published_tokens if source.streamed else None
    if available is None:
        sizes = [unit.size_bytes for unit in source.units()]
        available = None if None in sizes else round(sum(size or 0 for size in sizes) / BYTES_PER_TOKEN)
    return Sample.of(tokens_needed(study)[source.name], available)
