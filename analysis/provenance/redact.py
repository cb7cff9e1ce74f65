"""What must not leave a machine: absolute paths, which hold names of people and of folders, and names of hosts.

In: JSON trees of provenance, records and configs. Out: the same trees, in which known folders are words (DATA, RUNS),
any other absolute path is PATH/<its last part>, and hosts are numbered.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ABSOLUTE = re.compile(r"""(?:file://|(?<![\w.~/<]))/[^\s/'",;:<>|{}]+(?:/[^\s/'",;:<>|{}]*)+""")
"""Matches absolute paths of two parts or more, but no URL and no closing tag. `file://` goes with its path."""


class Redaction:
    def __init__(self, folders: Mapping[str, Path | None], hosts: Iterable[str] = ()) -> None:
        """folders: word -> what it stands for; the innermost of several wins."""
        known = {str(path): word for word, path in folders.items() if path is not None and path != path.parent}
        self.words = dict(sorted(known.items(), key=lambda item: -len(item[0])))
        self.hosts = {host: f"host{number}" for number, host in enumerate(sorted(set(hosts)), 1)}
        self._folder = re.compile(rf"(?<![\w.~/<-])(?:{'|'.join(map(re.escape, self.words)) or '(?!)'})(?![\w.-])")
        self.replaced = 0

    def text(self, given: str) -> str:
        if given in self.hosts:
            self.replaced += 1
            return self.hosts[given]
        inside, some = self._folder.subn(lambda found: self.words[found.group()], given)
        outside, more = ABSOLUTE.subn(lambda found: f"PATH/{found.group().rstrip('/').rpartition('/')[2]}", inside)
        self.replaced += some + more
        return outside

    def tree(self, value: Any) -> Any:
        """A JSON tree with every string redacted, keys too."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.tree(item) for key, item in value.items()}
        return [self.tree(item) for item in value] if isinstance(value, list | tuple) else value

    def found_in(self, text: str) -> str | None:
        """A known folder that a text still names; None: it names none."""
        found = self._folder.search(text)
        return found.group() if found else None
