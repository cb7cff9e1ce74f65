"""One unit of a source to one part of its token shards.

In: a unit (an input file), a tokenizer, and the rules that hold documents out and sample them. Out, in a working
folder: the files of `mixtures.tokens.shards` for this unit, and after them `part-00000.json`, which says what is in
them.

Parts are independent, so any worker may write any of them and nothing passes through one process. Every file gets its
name only when it is whole and on the disk; a part whose .json is there is finished and is kept by the next run. Equal
documents give equal bytes.

A document is held out where the hash of its text falls into the lowest hundredth, so that a text lies on the same side
whatever source, file or order it comes in. The hash that samples documents is another one.
"""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from configs.artifacts import fingerprint, read_object, write_json
from configs.errors import ArtifactError
from configs.untrusted.checks import understood
from mixtures.sources.source import Document, Dropped, Unit
from mixtures.tokens.filters import DocumentFilter
from mixtures.tokens.part_files import PartFiles, Side
from mixtures.tokens.sampling import HASHES, sampling_hash
from mixtures.tokens.shards import KINDS, VALIDATION, part_name
from mixtures.tokens.tokenizer import Tokenizer

HELD_OUT_BELOW = HASHES // 100


@dataclass(frozen=True)
class PartJob:
    """What one worker needs to write one part."""

    unit: Unit
    number: int
    folder: Path
    """The working folder."""
    tokenizer: Path
    tokenizer_sha256: str
    held_out_below: int = HELD_OUT_BELOW
    """Documents whose hash (of HASHES) is below this are held out."""
    sample_below: int = HASHES
    """Documents whose sampling hash (of HASHES) is below this are taken."""
    max_tokens: int | None = None
    """The unit ends once it has given this many training tokens."""
    document_filter: DocumentFilter | None = None
    """Leaves out documents, for instance those that hold benchmark items."""

    @property
    def record(self) -> Path:
        return self.folder / f"{part_name(self.number)}.json"


@dataclass(frozen=True)
class Part:
    """The record of a finished part."""

    unit: str
    inputs: dict[str, Any]
    number: int
    held_out_below: int
    smallest_hash: int
    """The smallest hash of all documents taken; HASHES where there is none."""
    training: Side
    validation: Side
    dropped: dict[str, int]
    """Rows that hold no usable text, by reason."""
    dropped_first: dict[str, list[str]]
    """The first places of each reason."""
    not_sampled: int
    """Documents left out because a sample was wanted."""

    @classmethod
    def read(cls, path: Path) -> Part:
        value = read_object(path)
        with understood(path, hint="delete it and rerun"):
            sides = {side: Side(**value[side]) for side in ("training", VALIDATION)}
            return cls(**value | sides)

    def entry(self) -> dict[str, Any]:
        """What the source's manifest says of this unit."""
        return {
            "name": self.unit,
            "part": part_name(self.number),
            "inputs": self.inputs,
            "documents": self.training.documents,
            "tokens": self.training.tokens,
            "validation_documents": self.validation.documents,
            "validation_tokens": self.validation.tokens,
            "dropped": self.dropped,
            "not_sampled": self.not_sampled,
        }


class Written(NamedTuple):
    part: Part
    kept: bool
    """An earlier run had finished it."""


def write_part(job: PartJob) -> Written:
    """Write the part, or keep what an earlier run finished from the same inputs."""
    inputs = job.unit.inputs()
    finished = _finished(job, inputs)
    if finished is not None:
        return Written(finished, kept=True)
    remove_part(job.folder, job.number)
    tokenizer = _tokenizer(job.tokenizer, job.tokenizer_sha256)
    dropped = Dropped()
    not_sampled: Counter[str] = Counter()
    smallest = HASHES
    with (
        PartFiles(job.folder, job.number, tokenizer) as train,
        PartFiles(job.folder / VALIDATION, job.number, tokenizer) as held_out,
    ):
        for row, text in _taken(job, dropped, not_sampled):
            utf8 = text.encode()
            text_hash = held_out_hash(utf8)
            smallest = min(smallest, text_hash)
            side = held_out if text_hash < job.held_out_below else train
            side.add(row, tokenizer.encode_array(text), len(utf8))
            if job.max_tokens is not None and train.tokens >= job.max_tokens:
                break
        sides = train.finish(), held_out.finish()
    part = Part(
        job.unit.name,
        inputs,
        job.number,
        job.held_out_below,
        smallest,
        *sides,
        dropped=dict(sorted(dropped.counts.items())),
        dropped_first=dropped.first,
        not_sampled=not_sampled.total(),
    )
    write_json(job.record, asdict(part))
    return Written(part, kept=False)


def _taken(job: PartJob, dropped: Dropped, not_sampled: Counter[str]) -> Iterator[Document]:
    """The documents that are sampled, and of those the ones that are clean."""
    documents = _sampled(job, dropped, not_sampled)
    keep = job.document_filter
    if keep is None:
        return documents
    return keep(documents, lambda row: dropped.add(keep.reason, f"{job.unit.name} row {row}"))


def _sampled(job: PartJob, dropped: Dropped, not_sampled: Counter[str]) -> Iterator[Document]:
    for document in job.unit.documents(dropped):
        if job.sample_below < HASHES and sampling_hash(document.text.encode()) >= job.sample_below:
            not_sampled["hash"] += 1
        else:
            yield document


def remove_part(folder: Path, number: int) -> None:
    """Remove a part; its record goes first, so that what is left of it is never taken for finished."""
    name = part_name(number)
    (folder / f"{name}.json").unlink(missing_ok=True)
    for side in (folder, folder / VALIDATION):
        for kind in KINDS:
            (side / f"{name}{kind}").unlink(missing_ok=True)


def held_out_hash(utf8: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(utf8, digest_size=8).digest(), "big")


def _finished(job: PartJob, inputs: Mapping[str, Any]) -> Part | None:
    if not job.record.is_file():
        return None
    part = Part.read(job.record)
    if (part.unit, part.held_out_below) != (job.unit.name, job.held_out_below):
        return None
    if fingerprint(part.inputs) != fingerprint(inputs):
        return None
    sides = ((job.folder, part.training), (job.folder / VALIDATION, part.validation))
    for folder, side in sides:
        for name, entry in side.files.items():
            path = folder / name
            if not path.is_file() or path.stat().st_size != entry["bytes"]:
                return None
    return part


@functools.lru_cache(maxsize=1)
def _tokenizer(folder: Path, sha256: str) -> Tokenizer:
    tokenizer = Tokenizer.load(folder)
    if tokenizer.sha256 != sha256:
        raise ArtifactError("the tokenizer changed while it was in use", where=folder, hint="rerun")
    return tokenizer
