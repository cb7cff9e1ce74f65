"""Token shards, SFT sets and tokenizers against their manifests, byte for byte. Nothing is changed.

In: folders. Out: what each holds, or the first file and document that is wrong.

Of a source: every file's size and sha256; its index against its tokens; every id below the vocabulary; every document
ends with the one end-of-document token it has and holds no other special token; rows, counts, lowest and highest id
against the manifest; and the tokenizer against its folder. Where a byte of the tokens was altered, the checksums of the
documents tell which one it is in.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from configs.artifacts import MANIFEST, read_object, verify_files
from configs.errors import ArtifactError
from configs.layout import tokenizer_dir
from configs.untrusted.checks import understood
from mixtures.parallel import map_units
from mixtures.tokens.part_checks import PartCheck, PartCounts, Vocabulary, check_part, wrong
from mixtures.tokens.sft import SftDataset
from mixtures.tokens.shards import VALIDATION, read_manifest
from mixtures.tokens.tokenizer import Tokenizer, check_identity

SMALL_BYTES = 2**28
"""Below this, another process costs more than it saves."""


class Row(NamedTuple):
    """A line of the table: one artefact that is as it should be."""

    name: str
    kind: str
    documents: int
    tokens: int
    bytes: int


def verify(folders: Sequence[Path], *, workers: int | None = None) -> Iterator[Row]:
    """Check folders of token shards, SFT sets and tokenizers, one after another.

    workers: processes that check the parts of a source (None: one for each CPU). Raises ArtifactError naming the first
    file that is wrong and, where it can be told, the document.
    """
    kinds: dict[str, Callable[[Path], Row]] = {
        "tokens": functools.partial(verify_shards, workers=workers),
        "sft": _verify_sft,
        "tokenizer": _verify_tokenizer,
    }
    for folder in folders:
        kind = read_object(folder / MANIFEST).get("kind") if (folder / MANIFEST).is_file() else None
        if kind not in list(kinds):
            raise ArtifactError(
                "no complete artefact here",
                where=folder,
                valid="a folder of token shards, an SFT set or a tokenizer, with manifest.json",
                hint="make it: python -m mixtures.tokenize --help",
            )
        with understood(folder / MANIFEST, hint="delete the folder and make it again"):
            row = kinds[kind](folder)
        yield row


def verify_shards(folder: Path, *, workers: int | None = None) -> Row:
    """Check one source's shards. Raises ArtifactError as `verify` does."""
    manifest = read_manifest(folder)
    tokenizer = _tokenizer_of(folder, manifest)
    sides = {folder: manifest, folder / VALIDATION: manifest[VALIDATION]}
    for side, entry in sides.items():
        verify_files(side, entry["files"])
        _no_strangers(side, {*entry["files"], MANIFEST})
    found = _check_parts(sides, tokenizer, workers)
    for side, entry in sides.items():
        _compare(folder, side, entry, found[side])
    total = manifest["documents"] + manifest[VALIDATION]["documents"]
    of_units = sum(unit["documents"] + unit["validation_documents"] for unit in manifest["units"])
    if not manifest["kept"] == of_units == total:
        raise wrong(folder / MANIFEST, "documents kept, of the units and of both sides disagree")
    size = sum(entry["bytes"] for side in sides.values() for entry in side["files"].values())
    return Row(str(folder), "token shards", total, manifest["tokens"] + manifest[VALIDATION]["tokens"], size)


def _check_parts(
    sides: Mapping[Path, Mapping[str, Any]], tokenizer: Vocabulary, workers: int | None
) -> dict[Path, list[PartCounts]]:
    """Side -> what each of its parts holds. Raises ArtifactError for the first part that is wrong."""
    checks = [
        PartCheck(side, name.removesuffix(".bin"), entry["files"], tokenizer)
        for side, entry in sides.items()
        for name in sorted(entry["files"])
        if name.endswith(".bin")
    ]
    small = sum(entry["bytes"] for check in checks for entry in check.files().values()) < SMALL_BYTES
    counts = dict(map_units(check_part, checks, workers=1 if small and workers is None else workers))
    found: dict[Path, list[PartCounts]] = {side: [] for side in sides}
    # In order, so that the file named is the first that is wrong.
    for number, check in enumerate(checks):
        if (problem := counts[number].problem) is not None:
            raise problem
        found[check.folder].append(counts[number])
    return found


def _compare(folder: Path, side: Path, entry: Mapping[str, Any], parts: Sequence[PartCounts]) -> None:
    """The manifest's counts of one side against those found."""
    documents = sum(part.documents for part in parts)
    found = {
        "documents": documents,
        "eods": documents,  # each has exactly one
        "tokens": sum(part.tokens for part in parts),
        "min_id": min((part.min_id for part in parts if part.min_id is not None), default=None),
        "max_id": max((part.max_id for part in parts if part.max_id is not None), default=None),
    }
    for key, value in found.items():
        if entry[key] != value:
            place = key if side == folder else f"{side.name}.{key}"
            raise wrong(folder / MANIFEST, f"{place} is {entry[key]}, the files hold {value}")


def _tokenizer_of(folder: Path, manifest: Mapping[str, Any]) -> Vocabulary:
    """The tokenizer the shards were made with. Raises ArtifactError where the one beside them is another."""
    home = tokenizer_dir(folder.parents[2], folder.parent.name)
    if not (home / "tokenizer.json").is_file():
        raise wrong(home / "tokenizer.json", f"the tokenizer of {folder} is missing")
    tokens, sha256 = _tokenizer(home)
    if manifest["tokenizer"] != sha256:
        raise wrong(folder / MANIFEST, f"made with another tokenizer than {home} (sha256 {sha256[:12]})")
    check_identity(manifest, folder, home)
    for key, value in (("vocab_size", tokens.vocab_size), ("eod", tokens.eod)):
        if manifest[key] != value:
            raise wrong(folder / MANIFEST, f"{key} is {manifest[key]}, the tokenizer {home} has {value}")
    return tokens


@functools.lru_cache(maxsize=4)
def _tokenizer(home: Path) -> tuple[Vocabulary, str]:
    tokenizer = Tokenizer.load(home)
    special = (tokenizer.eod, tokenizer.special.pad, *tokenizer.special.roles.values())
    return Vocabulary(tokenizer.vocab_size, tokenizer.eod, special), tokenizer.sha256


def _no_strangers(folder: Path, known: set[str]) -> None:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_file() and path.name not in known:
            raise wrong(path, "the manifest does not name this file", hint="remove it")


def _verify_sft(folder: Path) -> Row:
    dataset = SftDataset.open(folder, deep=True)
    home = tokenizer_dir(folder.parents[2], folder.parent.name)
    if dataset.manifest["tokenizer"] != _tokenizer(home)[1]:
        raise wrong(folder / MANIFEST, f"made with another tokenizer than {home}")
    check_identity(dataset.manifest, folder, home)
    size = sum(entry["bytes"] for entry in dataset.manifest["files"].values())
    return Row(str(folder), "SFT set", len(dataset), dataset.manifest["tokens"], size)


def _verify_tokenizer(folder: Path) -> Row:
    tokens, _ = _tokenizer(folder)
    size = sum(entry["bytes"] for entry in read_object(folder / MANIFEST)["files"].values())
    return Row(str(folder), "tokenizer", 0, tokens.vocab_size, size)
