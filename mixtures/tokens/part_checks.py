"""One part of token shards against its manifest: files, index, rows, and every id.

In: a part's place and what its manifest and tokenizer say. Out: what it holds, or the first thing that is wrong, down
to the document. Memory stays flat however large the part.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from configs.artifacts import sha256_file
from configs.errors import ArtifactError
from configs.untrusted.checks import map_array
from mixtures.tokens.part_files import checksums
from mixtures.tokens.shards import KINDS, ROWS_DTYPE, id_dtype, read_index

BLOCK_TOKENS = 2**23
"""Ids checked at a time; bounds the memory."""


class Vocabulary(NamedTuple):
    """What a tokenizer says of the ids it gives."""

    vocab_size: int
    eod: int
    special: tuple[int, ...]
    """Ids that no text gives, `eod` among them."""


class PartCheck(NamedTuple):
    """One part to check."""

    folder: Path
    part: str
    manifest_files: Mapping[str, Any]
    tokens: Vocabulary

    def files(self) -> dict[str, Any]:
        names = [self.part + kind for kind in KINDS]
        missing = [name for name in names if name not in self.manifest_files]
        if missing:
            raise wrong(self.folder / missing[0], "the manifest does not name this file of a part")
        return {name: self.manifest_files[name] for name in names}


class PartCounts(NamedTuple):
    documents: int = 0
    tokens: int = 0
    min_id: int | None = None
    max_id: int | None = None
    problem: ArtifactError | None = None


def check_part(check: PartCheck) -> PartCounts:
    """Everything that can be known of one part; a problem comes back, so that the first of all parts is reported."""
    try:
        return _checked(check)
    except ArtifactError as error:
        return PartCounts(problem=error.with_traceback(None))  # whose frames would keep the part's files open


def _checked(check: PartCheck) -> PartCounts:
    stem = check.folder / check.part
    bin_path, index_path, rows_path = (stem.with_suffix(kind) for kind in (".bin", ".idx", ".rows.npy"))
    for path in (index_path, rows_path):
        if sha256_file(path) != check.manifest_files[path.name]["sha256"]:
            raise wrong(path, "sha256 differs from the manifest")
    index = read_index(index_path)
    if index.dtype != id_dtype(check.tokens.vocab_size):
        raise wrong(
            index_path, f"{index.dtype} ids, the tokenizer's {check.tokens.vocab_size} entries take another type"
        )
    ends = np.cumsum(index.lengths, dtype=np.int64)
    n = len(ends)
    if n == 0 or index.lengths.min() < 1:
        raise wrong(index_path, "a document without a token")
    if not np.array_equal(index.offsets, (ends - index.lengths) * index.dtype.itemsize):
        raise wrong(index_path, "the documents do not lie one after another")
    if not np.array_equal(index.bounds, np.arange(n + 1)):
        raise wrong(index_path, "documents and sequences differ")
    if bin_path.stat().st_size != ends[-1] * index.dtype.itemsize:
        raise wrong(bin_path, f"{bin_path.stat().st_size} bytes, its index says {ends[-1] * index.dtype.itemsize}")
    rows = _rows(rows_path, n)
    low, high = _check_ids(bin_path, index.dtype, ends, check.tokens)
    # The hash of the tokens comes last: an impossible id names its document, a hash names nothing.
    if sha256_file(bin_path) != check.manifest_files[bin_path.name]["sha256"]:
        ids = np.asarray(np.memmap(bin_path, dtype=index.dtype, mode="r"))
        raise wrong(bin_path, f"sha256 differs from the manifest: {_altered(ids, index.lengths, rows)}")
    return PartCounts(n, int(ends[-1]), low, high)


def _rows(path: Path, documents: int) -> npt.NDArray[Any]:
    rows = map_array(path)
    if rows.dtype != ROWS_DTYPE or rows.shape != (documents,):
        raise wrong(path, f"{rows.dtype} {list(rows.shape)}, its index has {documents} documents")
    if rows["row"][0] < 0 or (np.diff(rows["row"]) <= 0).any():
        raise wrong(path, "rows do not rise")
    return rows


def _check_ids(path: Path, dtype: np.dtype[Any], ends: npt.NDArray[np.int64], tokens: Vocabulary) -> tuple[int, int]:
    """Lowest and highest id. Raises ArtifactError for the first document with an impossible one."""
    ids = np.asarray(np.memmap(path, dtype=dtype, mode="r"))
    low, high = tokens.vocab_size, -1
    for start in range(0, len(ids), BLOCK_TOKENS):
        block = ids[start : start + BLOCK_TOKENS]
        low, high = min(low, int(block.min())), max(high, int(block.max()))
        last = np.zeros(len(block), dtype=bool)
        first, beyond = np.searchsorted(ends, [start + 1, start + len(block) + 1])
        last[ends[first:beyond] - 1 - start] = True
        bad = last != (block == tokens.eod)
        for special in tokens.special:
            if special != tokens.eod:
                bad |= block == special
        bad |= (block < 0) | (block >= tokens.vocab_size)
        if bad.any():
            place = start + int(np.argmax(bad))
            raise wrong(
                path, f"document {np.searchsorted(ends, place, side='right')}: {_why(ids, ends, place, tokens)}"
            )
    return low, high


def _why(ids: npt.NDArray[Any], ends: npt.NDArray[np.int64], place: int, tokens: Vocabulary) -> str:
    token = int(ids[place])
    if not 0 <= token < tokens.vocab_size:
        return f"id {token} is not below the vocabulary of {tokens.vocab_size}"
    if int(np.searchsorted(ends, place + 1)) < len(ends) and ends[np.searchsorted(ends, place + 1)] == place + 1:
        return f"ends with {token}, not with the end-of-document token {tokens.eod}"
    return f"holds the special token {token}, which no text gives, before its end"


def _altered(ids: npt.NDArray[Any], lengths: npt.NDArray[np.int32], rows: npt.NDArray[Any]) -> str:
    for document, (found, recorded) in enumerate(zip(checksums(ids, lengths), rows["crc32"].tolist(), strict=True)):
        if found != recorded:
            return f"document {document} (row {rows['row'][document]} of its input) was altered"
    return "though every document's checksum is right"


def wrong(
    path: Path, problem: str, hint: str = "remove the folder and rerun python -m mixtures.tokenize"
) -> ArtifactError:
    return ArtifactError(problem, where=path, hint=hint)
