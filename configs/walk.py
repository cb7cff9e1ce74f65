"""The files below a folder with links followed: each real file once, and no link followed in a circle.

In: a folder. Out: its files by name (path below the folder), and what was left out and why.

A file that several names lead to keeps the name that passes the fewest links, and of those the first in name order. So
links add names only for what lies elsewhere, and a folder without links has the names it always had. Hard links are
files of their own: nothing tells them from copies, and a copy of the corpus on another disk would hold copies.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Walk:
    """What was found below a folder."""

    files: dict[str, Path] = field(default_factory=dict)
    """Path below the folder -> file, in name order."""
    folders: list[Path] = field(default_factory=list)
    """The folder itself and each real folder below it, once."""
    remarks: list[str] = field(default_factory=list)
    """Links that add nothing: they lead in a circle, or to what is counted under another name."""
    missing: list[tuple[Path, str]] = field(default_factory=list)
    """Links that lead nowhere and folders that cannot be read, each with the reason."""


@dataclass(frozen=True, order=True)
class _Link:
    name: str
    path: Path
    inside: tuple[str, ...]
    """Real paths of the folder that holds the link and of those from which links led there."""


def walk(folder: Path, *, hidden: bool = False, wanted: Callable[[Path], object] = lambda path: True) -> Walk:
    """hidden: with files and folders whose name begins with a dot. wanted: which files count."""
    walker = _Walker(hidden, wanted)
    walker.read(folder, "", ())
    while links := sorted(walker.links):  # links behind these come in the next round
        walker.links = []
        for link in links:
            walker.follow(link)
    walker.found.files = dict(sorted(walker.found.files.items()))
    return walker.found


class _Walker:
    def __init__(self, hidden: bool, wanted: Callable[[Path], object]) -> None:
        self.found = Walk()
        self.links: list[_Link] = []
        """Not yet followed."""
        self._hidden, self._wanted = hidden, wanted
        self._paths: dict[str, Path] = {}
        """Real path of each file and folder -> the path it is counted under."""

    def read(self, folder: Path, name: str, inside: tuple[str, ...]) -> None:
        """Take a folder and the folders in it, and put their links aside."""
        todo = [(folder, name, os.path.realpath(folder))]
        while todo:
            at, name, real = todo.pop()
            if real in self._paths:
                self._again(at, real)
                continue
            self._paths[real] = at
            self.found.folders.append(at)
            try:
                with os.scandir(at) as scan:
                    entries = sorted(scan, key=lambda entry: entry.name)
            except OSError as error:
                self.found.missing.append((at, f"cannot be read ({error.strerror})"))
                continue
            for entry in entries:
                path, below = at / entry.name, f"{name}/{entry.name}" if name else entry.name
                if entry.name.startswith(".") and not self._hidden:
                    continue
                if entry.is_symlink():
                    self.links.append(_Link(below, path, (real, *inside)))
                elif entry.is_dir():
                    todo.append((path, below, str(Path(real, entry.name))))
                elif entry.is_file():
                    self._take(path, below, str(Path(real, entry.name)))

    def follow(self, link: _Link) -> None:
        target = os.path.realpath(link.path)
        if link.path.is_dir():
            if any(os.path.commonpath([target, folder]) == target for folder in link.inside):
                self.found.remarks.append(f"{link.path} is a loop: it leads back to {target}; not followed")
            elif target in self._paths:
                self._again(link.path, target)
            else:
                self.read(link.path, link.name, link.inside)
        elif link.path.is_file():
            self._take(link.path, link.name, target)
        elif not link.path.exists():
            self.found.missing.append((link.path, "a link that leads nowhere"))

    def _take(self, path: Path, name: str, real: str) -> None:
        if not self._wanted(path):
            return
        if real in self._paths:
            self._again(path, real)
        else:
            self._paths[real] = path
            self.found.files[name] = path

    def _again(self, path: Path, real: str) -> None:
        self.found.remarks.append(f"{path} leads to {self._paths[real]}, which counts once")
