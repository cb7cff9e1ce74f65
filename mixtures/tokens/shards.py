"""Token shards: one source as token ids in files that megatron-core's IndexedDataset reads.

    part-00000.bin         ids of one unit's documents, an end-of-document token after each; uint16 or int32
    part-00000.idx         Megatron's index: the documents' lengths and places
    part-00000.rows.npy    of each document: its row in the unit, and a CRC-32 of its ids
    validation/            the same for the documents that are held out
    manifest.json          counts, units, drops, and the sha256 of every file; written last

A source may have thousands of parts. Their lengths are read into memory when the folder is opened. Ids are read
document by document (`mixtures.tokens.open_files`), so that the number of parts does not raise the number of open
files.

`mixtures.tokens.parts` writes parts, `mixtures.tokens.assembly` makes folders of them, `mixtures.verify` checks every
byte.
"""

from __future__ import annotations

import bisect
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from configs.artifacts import MANIFEST, fingerprint, read_object, verify_files
from configs.errors import ArtifactError
from configs.token_bytes import id_bytes
from configs.untrusted.checks import map_array, understood
from mixtures.tokens.open_files import HINT, PieceReader

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
    return next(dtype for dtype in DTYPE_CODES if dtype.itemsize == id_bytes(vocab_size))


def part_name(number: int) -> str:
    return f"part-{number:05d}"


class Shards:
    """One source's training documents; `validation` holds the others. `Shards.open(folder)` makes one."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        self.folder = folder
        self.manifest = dict(manifest)
        """What manifest.json says of these documents (of `validation`: its part of it)."""
        self._parts = sorted(int(name[5:-4]) for name in manifest["files"] if name.endswith(".bin"))
        self._files = [PieceReader(folder / f"{part_name(number)}.bin") for number in self._parts]
        lengths = [np.empty(0, np.int32)]
        self._dtype = np.dtype(np.uint16)
        for number, file in enumerate(self._files):
            dtype, of_part = read_lengths(file.path)
            if number and dtype != self._dtype:
                raise damaged(file.path.with_suffix(".idx"), f"not ids of {self._dtype}, as the first part has")
            self._dtype = dtype
            lengths.append(of_part)
        self.lengths: npt.NDArray[np.int32] = np.concatenate(lengths)
        """Tokens of each document, its end-of-document token included; int32 [num_documents]."""
        ends = np.cumsum(self.lengths, dtype=np.int64)
        self._starts = ends - self.lengths
        """First token of each document, counted over all parts; int64 [num_documents]."""
        self._first = np.cumsum([len(of_part) for of_part in lengths]).tolist()
        """First document of each part; [parts + 1]."""
        self.num_documents = len(self.lengths)
        self.num_tokens = int(ends[-1]) if len(ends) else 0
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
        with understood(folder / MANIFEST, hint=HINT):
            if verify or deep:
                verify_files(folder, manifest["files"], deep=deep)
                verify_files(folder / VALIDATION, manifest["validation"]["files"], deep=deep)
            return cls(folder, manifest)

    def document(self, i: int, start: int = 0, stop: int | None = None) -> npt.NDArray[Any]:
        """Tokens start to stop - 1 of document i, by default all with the end-of-document token; int32 or uint16 [n].

        Raises ArtifactError where the file has gone or has become shorter.
        """
        start, stop, _ = slice(start, stop).indices(int(self.lengths[i]))
        part = self._part_of(i)
        place = int(self._starts[i] - self._starts[self._first[part]]) + start
        size = max(0, stop - start) * self._dtype.itemsize
        return np.frombuffer(self._files[part].read(size, place * self._dtype.itemsize), dtype=self._dtype)

    def origin(self, i: int) -> tuple[str, int]:
        """Where document i was read: the name of its unit (its input file) and its row there, from 0.

        Raises ArtifactError where the file of rows has gone or is another.
        """
        part = self._part_of(i)
        with understood(self.folder / MANIFEST, hint=HINT):
            unit = str(self.manifest["units"][self._parts[part]]["name"])
        path = self._files[part].path.with_suffix(".rows.npy")
        rows = map_array(path, hint=HINT)
        documents = self._first[part + 1] - self._first[part]
        if rows.dtype != ROWS_DTYPE or rows.shape != (documents,):
            raise damaged(path, f"{rows.dtype} {list(rows.shape)}, the index has {documents} documents")
        return unit, int(rows["row"][i - self._first[part]])

    def _part_of(self, i: int) -> int:
        return bisect.bisect_right(self._first, i) - 1

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes of text for each token, end-of-document tokens counted: for bits a byte from nats a token."""
        with understood(self.folder / MANIFEST, hint=HINT):
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
    """A .idx file."""

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
    """The whole index. Raises ArtifactError where the file is no whole index."""
    with path.open("rb") as stream:
        dtype, n = _read_header(stream, path)
        lengths = np.fromfile(stream, dtype="<i4", count=n)
        offsets = np.fromfile(stream, dtype="<i8", count=n)
        return Index(dtype, lengths, offsets, np.fromfile(stream, dtype="<i8", count=n + 1))


def read_lengths(tokens: Path) -> tuple[np.dtype[Any], npt.NDArray[np.int32]]:
    """Type of the ids in a .bin file, and the lengths of its documents, from the index beside it.

    Raises ArtifactError where the index is not whole or says more or fewer tokens than the file holds.
    """
    path = tokens.with_suffix(".idx")
    with path.open("rb") as stream:
        dtype, n = _read_header(stream, path)
        lengths = np.fromfile(stream, dtype="<i4", count=n)
    if n and lengths.min() < 0:
        raise damaged(path, "a document has less than no token")
    wanted = int(lengths.sum(dtype=np.int64))
    if (size := tokens.stat().st_size) != wanted * dtype.itemsize or not wanted:
        raise damaged(tokens, f"{size} bytes, its index says {wanted} tokens of {dtype.itemsize} bytes")
    return dtype, lengths


def _read_header(stream: BinaryIO, path: Path) -> tuple[np.dtype[Any], int]:
    """Type of the ids and number of documents. Raises ArtifactError where the file is no whole index."""
    header = stream.read(INDEX_HEADER.size)
    if len(header) < INDEX_HEADER.size:
        raise damaged(path, "shorter than its header")
    magic, version, code, n, bounds = INDEX_HEADER.unpack(header)
    dtypes = {code: dtype for dtype, code in DTYPE_CODES.items()}
    if magic != INDEX_MAGIC or version != 1 or code not in dtypes:
        raise damaged(path, "not a Megatron index of 2- or 4-byte ids")
    size = os.fstat(stream.fileno()).st_size
    if bounds != n + 1 or size != INDEX_HEADER.size + 12 * n + 8 * (n + 1):
        raise damaged(path, f"{size} bytes do not hold the {n} documents of its header")
    return dtypes[code], n


def damaged(path: Path, problem: str) -> ArtifactError:
    return ArtifactError(problem, where=path, hint=HINT)


def _side(manifest: Mapping[str, Any], side: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of held-out documents, with what they share with the others."""
    return {key: manifest[key] for key in ("source", "tokenizer", "dtype", "units")} | dict(side)
