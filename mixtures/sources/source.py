"""A source's units and their documents, wherever they are: local files, the Hub, or Software Heritage by way of either.

In: an entry of configs/sources.yaml and the study's local data folder, or None for the Hub. Out: the units of the
source (one input file each), and of each unit its documents, or message lists checked for role and content. Everything
streams; a unit need not fit in memory. Units are picklable: different processes read them.

A row that holds no document (null, blank, not UTF-8, not JSON, ...) is dropped and counted with its place; a malformed
conversation is refused, because a wrong role would silently move the loss.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from configs.errors import DataError
from configs.schema import SftSpec, SourceSpec
from configs.untrusted.checks import shown
from mixtures.sources import hub, software_heritage
from mixtures.sources.formats import MESSAGES, ROLES, TEXT, Unusable
from mixtures.sources.local_files import Found, LocalFile, find_globs, find_in_folder

KEPT_EXAMPLES = 5

Message = dict[str, str]


class Document(NamedTuple):
    """A text and its row in the unit, from 0 (rows that are dropped count too)."""

    row: int
    text: str


@dataclass
class Dropped:
    """Rows left out: how many for each reason, and where the first few are."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, where: str) -> None:
        self.counts[reason] += 1
        places = self.first.setdefault(reason, [])
        if len(places) < KEPT_EXAMPLES:
            places.append(where)


@dataclass(frozen=True)
class Source:
    """A pretraining source or SFT set; `root` is a local data folder, or None for the Hub."""

    name: str
    spec: SourceSpec | SftSpec
    root: Path | None
    listing: Path | None = None
    """Where the files of a pinned data set are recorded."""

    @property
    def streamed(self) -> bool:
        """Read from the Hub."""
        return self.root is None and self.spec.files is None

    @property
    def folder(self) -> Path:
        assert self.root is not None
        return self.root / "corpora" / (self.spec.folder or self.name)

    @property
    def column(self) -> str:
        """`text` or `messages` in a local folder; elsewhere whatever its publisher chose."""
        in_folder = not self.streamed and self.spec.files is None
        if isinstance(self.spec, SourceSpec):
            return "text" if in_folder else self.spec.text_column
        return "messages" if in_folder else self.spec.messages_column

    @property
    def holds_ids(self) -> bool:
        """The rows name documents that lie at Software Heritage; a local folder always has the text itself."""
        is_id_table = isinstance(self.spec, SourceSpec) and self.spec.contents == "software_heritage"
        return is_id_table and (self.streamed or self.spec.files is not None)

    @property
    def where(self) -> str:
        if self.streamed:
            return f"{self.spec.hub} on the Hub"
        return f"files of {self.name!r}" if self.spec.files is not None else str(self.folder)

    def resolve_revision(self, data: Path, log: Callable[[str], None]) -> Source:
        """The same source at the commit that its revision stood for when `data` first saw it."""
        if not self.streamed:
            return self
        commit = hub.resolve_revision(self._hub_id(), self.spec.revision, data, log)
        spec = self.spec.model_copy(update={"revision": commit})
        return dataclasses.replace(self, spec=spec, listing=hub.listing_of(spec, data))

    def units(self) -> list[Unit]:
        """One for each input file, in name order. Raises DataError where there is none, or the Hub does not answer."""
        files: dict[str, LocalFile] | dict[str, hub.HubFile]
        if self.streamed:
            self._hub_id()
            files = hub.list_files(self.spec, self.listing)
        else:
            files = {name: LocalFile(path) for name, path in self._found().files.items()}
        return [Unit(self, name, file) for name, file in files.items()]

    def remarks(self) -> list[str]:
        """Links among its local files that add nothing, for a person to see."""
        return [] if self.streamed else self._found().remarks

    def _found(self) -> Found:
        return self._in_folder() if self.spec.files is None else find_globs(self.spec.files, self.root)

    def _hub_id(self) -> str:
        if self.spec.hub is None:
            raise DataError(
                f"source {self.name!r} is not on the Hub", hint="name a local data folder, or give the source `files`"
            )
        return self.spec.hub

    def _in_folder(self) -> Found:
        corpora = self.folder.parent
        if not corpora.is_dir():
            raise DataError(
                "no data folder with corpora/ here",
                where=self.root,
                hint="name the folder on the command line, or generate the microworld",
            )
        if not self.folder.is_dir():
            others = ", ".join(sorted(p.name for p in corpora.iterdir() if p.is_dir()))
            raise DataError(
                f"no folder for source {self.name!r}", where=self.folder, valid=f"found: {others or 'nothing'}"
            )
        found = find_in_folder(self.folder)
        if not found.files:
            raise DataError(
                f"no file of source {self.name!r}", where=self.folder, valid=".parquet, .jsonl (.gz, .zst), .txt"
            )
        return found


@dataclass(frozen=True)
class Unit:
    """One input file of a source, read by one worker; `name` is unique and stable within the source."""

    source: Source
    name: str
    file: LocalFile | hub.HubFile

    @property
    def where(self) -> str:
        """The file's name for messages."""
        return self.file.where

    @property
    def size_bytes(self) -> int | None:
        """Size of the file as it is stored; None where only reading would tell."""
        return None if self.source.holds_ids else self.file.size_bytes

    def inputs(self) -> dict[str, Any]:
        """What the rows are read from; equal values mean equal rows."""
        contents = {"contents": "software_heritage"} if self.source.holds_ids else {}
        return {"column": self.source.column, **self.file.inputs(), **contents}

    def documents(self, dropped: Dropped | None = None) -> Iterator[Document]:
        """Documents in order; `dropped` counts the other rows by reason. Raises DataError for a damaged file."""
        for row, value in enumerate(self._texts()):
            problem = _unusable(value)
            if problem is None:
                yield Document(row, value)
            elif dropped is not None:
                place = f"{self.name} {self._place(row)}".rstrip()
                dropped.add(problem.reason, f"{place} ({problem.detail})" if problem.detail else place)

    def conversations(self) -> Iterator[list[Message]]:
        """Message lists in order. Raises DataError naming file and row of a malformed one."""
        for row, (messages,) in enumerate(self.file.rows({self.source.column: MESSAGES})):
            problem = _malformed(messages)
            if problem:
                valid = f"a list of {{role, content}} with roles {', '.join(ROLES)}"
                where = f"{self.where} {self._place(row)}".rstrip()
                raise DataError(f"{self.source.column}: {problem}", where=where, valid=valid)
            yield messages

    def _place(self, row: int) -> str:
        return f"document {row}" if self.source.holds_ids else self.file.place(row)

    def _texts(self) -> Iterator[Any]:
        spec, column = self.source.spec, self.source.column
        if self.source.holds_ids:
            assert isinstance(spec, SourceSpec)
            blobs = self.file.rows(software_heritage.columns(column))
            yield from software_heritage.contents(blobs, self.where, spec.contents_endpoint)
        else:
            for (value,) in self.file.rows({column: TEXT}):
                yield value


def _unusable(value: Any) -> Unusable | None:
    """The reason why a row is dropped; None where its text is kept."""
    if isinstance(value, Unusable):
        return value
    if value is None:
        return Unusable("null")
    if not isinstance(value, str):
        return Unusable("not text")
    if not _encodable(value):
        return Unusable("lone surrogate")
    return Unusable("blank") if not value or value.isspace() else None


def _encodable(text: str) -> bool:
    r"""JSON can write halves of a surrogate pair ("\ud800"), which are no characters and have no UTF-8."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def _malformed(messages: Any) -> str | None:
    """What is wrong with a conversation; None where nothing is."""
    if isinstance(messages, Unusable):
        return messages.reason
    if not isinstance(messages, list) or not messages:
        return f"expected a list of messages, found {shown(messages)}"
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            return f"message {number} has no text content: {shown(message)}"
        if not _encodable(message["content"]):
            return f"message {number} has a lone surrogate"
        role = message.get("role")
        if not isinstance(role, str) or role not in ROLES:
            return f"message {number} has the unknown role {shown(role)}"
    return None
