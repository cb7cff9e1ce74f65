"""Local files of a source: found by folder or glob, in name order.

In: a folder, or the globs of a sources entry. Out: name -> file. A name is the path below the folder, or below the
folder that all matched files share, so that it does not depend on where a corpus lies. Links are followed, and each
real file counts once (`configs.walk`).
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from configs.artifacts import sha256_unchanged
from configs.errors import DataError
from configs.walk import walk
from mixtures.sources.formats import READERS, Columns, Row, format_of, read_rows

LINK_HINT = "mend it, or remove it: documents behind it would be missed"


@dataclass(frozen=True)
class LocalFile:
    path: Path

    @property
    def where(self) -> str:
        return str(self.path)

    @property
    def size_bytes(self) -> int:
        return self.path.stat().st_size

    def inputs(self) -> dict[str, Any]:
        """Size and sha256: the content, wherever it lies. A process hashes a file once, unless it is written to."""
        return {"bytes": self.size_bytes, "sha256": sha256_unchanged(self.path)}

    def rows(self, columns: Columns) -> Iterator[Row]:
        """See `mixtures.sources.formats.read_rows`."""
        return read_rows(self.path, columns)

    def place(self, row: int) -> str:
        """The place in the file where a person would look for `row`."""
        match format_of(self.path):
            case ".parquet":
                return f"row {row}"
            case ".txt":
                return ""
            case _:
                return f"line {row + 1}"


class Found(NamedTuple):
    files: dict[str, Path]
    """Name -> file, in name order; each real file once."""
    remarks: list[str]
    """Links that add nothing (`configs.walk`)."""


def find_in_folder(folder: Path) -> Found:
    """Files by their path below `folder`; hidden files and other formats are left out.

    Raises DataError for a link that leads nowhere and a folder that cannot be read, whose documents would be missed.
    """
    found = walk(folder, wanted=format_of)
    for path, problem in found.missing:
        raise DataError(problem, where=path, hint=LINK_HINT)
    return Found(found.files, found.remarks)


def find_globs(patterns: str | Iterable[str], root: Path | None) -> Found:
    """Files by their path below the folder that all share; a matched folder counts with its content.

    root: where relative patterns start. Raises DataError for a pattern without a match, a file of another format, a
    relative pattern without a root, and as `find_in_folder`.
    """
    paths: set[Path] = set()
    remarks: dict[str, None] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        matched = _matches(pattern, root)
        paths.update(matched.files.values())
        remarks |= dict.fromkeys(matched.remarks)
    kept: dict[str, Path] = {}
    for path in sorted(paths, key=lambda path: (_links(path), path)):
        kept.setdefault(os.path.realpath(path), path)
    if again := sorted(paths - set(kept.values())):
        first = kept[os.path.realpath(again[0])]
        remarks[f"{len(again):,} names of files that count once, such as {again[0]} for {first}"] = None
    common = Path(os.path.commonpath([path.parent for path in kept.values()]))
    return Found(dict(sorted((path.relative_to(common).as_posix(), path) for path in kept.values())), list(remarks))


def _matches(pattern: str, root: Path | None) -> Found:
    """Files by their whole path."""
    full = Path(pattern).expanduser()
    if not full.is_absolute():
        if root is None:
            raise DataError(
                f"files: the pattern {pattern!r} is relative, and the study names no local data folder",
                hint="write an absolute path",
            )
        full = root / full
    found = Found({}, [])
    for match in _expanded(full, found.remarks):
        if match.is_dir():
            below = find_in_folder(match)
            found.files.update({str(path): path for path in below.files.values()})
            found.remarks.extend(below.remarks)
        elif not match.exists():
            raise DataError("a link that leads nowhere", where=match, hint=LINK_HINT)
        elif format_of(match):
            found.files[str(match)] = match
        else:
            raise DataError("not a format that is read here", where=match, valid=", ".join(READERS))
    if not found.files:
        raise DataError("no file matches", where=full, valid=", ".join(READERS))
    return found


def _expanded(pattern: Path, remarks: list[str]) -> Iterator[Path]:
    """What matches a glob; `**` stands for each real folder once, so that no link is followed in a circle."""
    parts = pattern.parts
    if "**" not in parts:
        yield from map(Path, glob.glob(str(pattern)))  # noqa: PTH207  (Path.glob does not follow links to folders)
        return
    place = parts.index("**")
    for top in glob.glob(str(Path(*parts[:place]))):  # noqa: PTH207
        if Path(top).is_dir():
            found = walk(Path(top), wanted=format_of)
            remarks.extend(found.remarks)
            remarks.extend(f"{path} is left out: {problem}" for path, problem in found.missing)
            tail = parts[place + 1 :] or ("*",)
            for folder in found.folders:
                below = _expanded(Path(glob.escape(str(folder)), *tail), remarks)
                # Folders that `**/*` matches are among `found.folders`.
                yield from (path for path in below if not path.is_dir()) if tail == ("*",) else below


def _links(path: Path) -> int:
    """How many links lead to it: the name with the fewest is kept."""
    return sum(part.is_symlink() for part in (path, *path.parents))
