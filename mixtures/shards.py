"""Token shards: one source as memory-mapped token ids, in files that megatron-core's IndexedDataset reads.

    part-00000.bin         ids of one unit's documents, an end-of-document token after each; uint16 or int32
    part-00000.idx         Megatron's index: the documents' lengths and places
    part-00000.rows.npy    of each document: its row in the unit, and a CRC-32 of its ids
    validation/            the same for the documents that are held out
    manifest.json          counts, units, drops, and the sha256 of every file; written last

`mixtures.parts` writes parts, `mixtures.assembly` makes folders of them, `mixtures.verify` checks every byte.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from configs.artifacts import MANIFEST, fingerprint, read_object, verify_files
from configs.errors import ArtifactError
from configs.untrusted.checks import map_array, understood

SHARDS_VERSION = 2
VALIDATION = "validation"
KINDS = (".bin", ".idx", ".rows.npy")

# Megatron's index: magic, version, dtype code, sequences, documents; then lengths, byte offsets, document bounds.
INDEX_HEADER = struct.Struct("<9sQBQQ")
INDEX_MAGIC = b"MMIDIDX\x00\x00"
DTYPE_CODES: dict[np.dtype[Any], int] = {np.dtype(np.int32): 4, np.dtype(np.uint16): 8}
ROWS_DTYPE = np.dtype([("row", "<i8"), ("crc32", "<u4")])


def id_dtype(vocab_size: int) -> np.dtype[Any]:
    """The type of ids on disk: two bytes where they suffice."""
    return np.dtype(np.uint16 if vocab_size <= 2**16 else np.int32)


def part_name(number: int) -> str:
    return f"part-{number:05d}"


class Shards:
    """One source's training documents; `validation` holds the others. `Shards.open(folder)` makes one."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        self.folder = folder
        self.manifest = dict(manifest)
        """What manifest.json says of these documents (of `validation`: its part of it)."""
        numbers = sorted(int(name[5:-4]) for name in manifest["files"] if name.endswith(".bin"))
        self._parts = [_Part(folder, number) for number in numbers]
        self._first = np.cumsum([0, *(len(part.lengths) for part in self._parts)])
        lengths = [np.empty(0, dtype=np.int32), *(part.lengths for part in self._parts)]
        self.lengths: npt.NDArray[np.int32] = np.concatenate(lengths)
        """Tokens of each document, its end-of-document token included; int32 [num_documents]."""
        self.num_documents = len(self.lengths)
        self.num_tokens = int(self.lengths.sum(dtype=np.int64))
        if (self.num_documents, self.num_tokens) != (manifest["documents"], manifest["tokens"]):
            raise damaged(folder, "the indexes disagree with the manifest's documents and tokens")
        held_out = manifest.get("validation")
        self.validation: Shards | None = Shards(folder / VALIDATION, _side(manifest, held_out)) if held_out else None

    @classmethod
    def open(cls, folder: Path, *, verify: bool = True, deep: bool = False) -> Shards:
        """Open a folder that `python -m mixtures.tokenize` made.

        `verify` compares every file's size with the manifest, `deep` also its sha256. Raises ArtifactError naming
        the file that is missing, truncated or altered.
        """
        manifest = read_manifest(folder)
        with understood(folder / MANIFEST, hint="delete the source's folder and rerun"):
            if verify or deep:
                verify_files(folder, manifest["files"], deep=deep)
                verify_files(folder / VALIDATION, manifest["validation"]["files"], deep=deep)
            return cls(folder, manifest)

    def document(self, i: int) -> npt.NDArray[Any]:
        """Ids of document i with its final end-of-document token: int32 or uint16 [n], a view into the file."""
        part = int(np.searchsorted(self._first, i, side="right")) - 1
        return self._parts[part].document(i - int(self._first[part]))

    def origin(self, i: int) -> tuple[str, int]:
        """Where document i was read: the name of its unit (its input file) and its row there, from 0."""
        place = int(np.searchsorted(self._first, i, side="right")) - 1
        part = self._parts[place]
        with understood(self.folder / MANIFEST, hint="delete the source's folder and rerun"):
            unit = str(self.manifest["units"][part.number]["name"])
        return unit, int(part.rows["row"][i - int(self._first[place])])

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes of text for each token, end-of-document tokens counted: for bits a byte from nats a token."""
        with understood(self.folder / MANIFEST, hint="delete the source's folder and rerun"):
            return float(self.manifest["utf8_bytes"] / self.manifest["tokens"])

    @property
    def fingerprint(self) -> str:
        """Changes when any token changes, wherever the folder lies."""
        sides = {"training": self.manifest["files"], VALIDATION: self.manifest.get("validation", {}).get("files")}
        return fingerprint(
            {
                side: {name: entry for name, entry in files.items() if not name.endswith(KINDS[2])}
                for side, files in sides.items()
                if files is not None
            }
        )


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder of shards. Raises ArtifactError where there is none, or one of another version."""
    path = folder / MANIFEST
    if not path.is_file():
        raise ArtifactError("no complete token shards here", where=folder, hint="python -m mixtures.tokenize --help")
    manifest = read_object(path)
    if manifest.get("kind") != "tokens" or manifest.get("version") != SHARDS_VERSION:
        problem = f"not token shards of version {SHARDS_VERSION}"
        raise ArtifactError(problem, where=path, hint="make them again: python -m mixtures.tokenize --help")
    return manifest


class Index(NamedTuple):
    """A .idx file, as views into it."""

    dtype: np.dtype[Any]
    lengths: npt.NDArray[np.int32]
    """Tokens of each document; [documents]."""
    offsets: npt.NDArray[np.int64]
    """Its first byte in the .bin file; [documents]."""
    bounds: npt.NDArray[np.int64]
    """Documents in sequences, which are the same here: 0, 1, ..., documents."""


def index_bytes(lengths: npt.NDArray[np.int32], dtype: np.dtype[Any]) -> bytes:
    """The .idx file of documents that lie one after another."""
    ends = np.cumsum(lengths, dtype="<i8") * dtype.itemsize
    offsets = ends - lengths.astype("<i8") * dtype.itemsize
    header = INDEX_HEADER.pack(INDEX_MAGIC, 1, DTYPE_CODES[dtype], len(lengths), len(lengths) + 1)
    bounds = np.arange(len(lengths) + 1, dtype="<i8")
    return header + lengths.astype("<i4").tobytes() + offsets.tobytes() + bounds.tobytes()


def read_index(path: Path) -> Index:
    """Raises ArtifactError where the file is no whole index."""
    index = np.memmap(path, dtype=np.uint8, mode="r") if path.stat().st_size else np.empty(0, dtype=np.uint8)
    if len(index) < INDEX_HEADER.size:
        raise damaged(path, "shorter than its header")
    magic, version, code, n, bounds = INDEX_HEADER.unpack(index[: INDEX_HEADER.size].tobytes())
    dtypes = {code: dtype for dtype, code in DTYPE_CODES.items()}
    if magic != INDEX_MAGIC or version != 1 or code not in dtypes:
        raise damaged(path, "not a Megatron index of 2- or 4-byte ids")
    if bounds != n + 1 or len(index) != INDEX_HEADER.size + 12 * n + 8 * (n + 1):
        raise damaged(path, f"{len(index)} bytes do not hold the {n} documents of its header")
    start = INDEX_HEADER.size
    lengths = np.frombuffer(index, dtype="<i4", count=n, offset=start)
    offsets = np.frombuffer(index, dtype="<i8", count=n, offset=start + 4 * n)
    if n and (lengths.min() < 0 or offsets[0] != 0):
        raise damaged(path, "a document has less than no token, or the first begins elsewhere")
    return Index(dtypes[code], lengths, offsets, np.frombuffer(index, dtype="<i8", offset=start + 12 * n))


def damaged(path: Path, problem: str) -> ArtifactError:
    return ArtifactError(problem, where=path, hint="delete the source's folder and rerun")


class _Part:
    """The files of one unit."""

    def __init__(self, folder: Path, number: int) -> None:
        self.number = number
        self._stem = folder / part_name(number)
        index = read_index(self._stem.with_suffix(".idx"))
        self.lengths = index.lengths
        self._starts = index.offsets // index.dtype.itemsize
        path = self._stem.with_suffix(".bin")
        tokens = int(self.lengths.sum(dtype=np.int64))
        if (size := path.stat().st_size) != tokens * index.dtype.itemsize or not tokens:
            raise damaged(path, f"{size} bytes, its index says {tokens} tokens of {index.dtype.itemsize} bytes")
        if int(self._starts[-1] + self.lengths[-1]) != tokens:
            raise damaged(path.with_suffix(".idx"), "its last document ends elsewhere than the tokens")
        # A plain array over the map: slices of np.memmap itself are several times slower.
        self._tokens = np.asarray(np.memmap(path, dtype=index.dtype, mode="r"))

    @functools.cached_property
    def rows(self) -> npt.NDArray[Any]:
        """ROWS_DTYPE [documents]. Raises ArtifactError for another array, or none."""
        path = self._stem.with_suffix(".rows.npy")
        rows = map_array(path, hint="delete the source's folder and rerun")
        if rows.dtype != ROWS_DTYPE or rows.shape != self.lengths.shape:
            raise damaged(path, f"{rows.dtype} {list(rows.shape)}, the index has {len(self.lengths)} documents")
        return rows

    def document(self, i: int) -> npt.NDArray[Any]:
        start = self._starts[i]
        return self._tokens[start : start + self.lengths[i]]


def _side(manifest: Mapping[str, Any], side: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of held-out documents, with what they share with the others."""
    return {key: manifest[key] for key in ("source", "tokenizer", "dtype", "units")} | dict(side)
