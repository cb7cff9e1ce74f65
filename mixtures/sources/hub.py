"""Data sets of the Hugging Face Hub, streamed file by file with `datasets`, at a commit that never moves.

In: an entry of configs/sources.yaml. Out: the files of its split, each of which streams its own rows, so that workers
share a data set without listing or downloading the whole of it. A branch or tag is resolved to its commit once, in
`<data>/revisions.json`, that of a benchmark too; a newer commit is never read unasked. Whatever keeps a data set from
being read (no network, terms not accepted, a revision that is gone, ...) is said in one message with the next step.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from configs.artifacts import fingerprint, lock_folder, read_json, read_object, write_json
from configs.errors import DataError, MagicError, one_line
from configs.layout import hub_listing, revisions_file
from configs.schema import SftSpec, SourceSpec
from configs.untrusted.checks import understood
from mixtures.sources.formats import BATCH_ROWS, Columns, Row, arrow_rows, check_columns

COMMIT = re.compile(r"[0-9a-f]{40}")
URL = re.compile(r"hf://datasets/.+?@(?P<commit>[^/]+)/(?P<path>.+)")
FORMATS = ("parquet", "json")
SITE = "https://huggingface.co"

# What a failure says of itself, what it means for the user, and the next step; the first that fits is told. By text:
# the libraries move their classes about, have replaced one HTTP client with another, and `datasets` hides the telling
# exception behind one of its own.
FAILURES = (
    (
        "GatedRepoError|is a gated dataset",
        "its terms must be accepted first",
        "accept them at {page}, then run `hf auth login` with a token of that account",
    ),
    (
        "RevisionNotFoundError|Revision .* doesn't exist",
        "there is no revision {revision} (any more)",
        "take one from {page}/commits/main as `revision`; a recorded one is in <data>/revisions.json",
    ),
    (
        "DisabledRepoError|DefunctDatasetError",
        "the {what} was withdrawn",
        "see {page}, or name a local folder",
    ),
    (
        "RepositoryNotFoundError|HFValidationError|doesn't exist on the Hub",
        "there is no such {what}, or it is private",
        "check its id or path; for a private one run `hf auth login`",
    ),
    (
        "scripts are no longer supported",
        "it is a loading script, which `datasets` no longer runs",
        "download its files as {page} says, and name them as `files`",
    ),
    (
        "OfflineModeIsEnabled",
        "offline mode is on, so the Hub is not asked",
        "unset HF_HUB_OFFLINE and HF_DATASETS_OFFLINE, or name a local folder",
    ),
    (
        "TransportError|ConnectionError|TimeoutError|LocalEntryNotFoundError",
        "the Hub cannot be reached",
        "check the network and its proxy, or name a local folder; what is finished is kept",
    ),
    ("EntryNotFoundError", "a file is missing at revision {revision}", "compare with {page}/tree/{revision}"),
    (
        "EmptyDatasetError|DataFilesNotFoundError",
        "it has no files that `datasets` reads",
        "see {page}; check `config` and `data_dir`",
    ),
)


@dataclass(frozen=True)
class HubFile:
    """One file of a data set at a commit; `format` names the loader of `datasets` that reads it."""

    hub: str
    revision: str
    path: str
    url: str
    format: str
    size_bytes: None = None

    @property
    def where(self) -> str:
        return f"{self.path} of {self.hub}@{self.revision[:12]} on the Hub"

    def inputs(self) -> dict[str, Any]:
        return {"hub": self.hub, "revision": self.revision, "path": self.path}

    def rows(self, columns: Columns) -> Iterator[Row]:
        """Raises DataError for a column that is missing or of another kind, and where the Hub fails."""
        # Only these columns travel over the network, and the files of a data set may differ in the others.
        options = {"columns": list(columns), "batch_size": BATCH_ROWS} if self.format == "parquet" else {}
        with explained(self.hub, self.revision):
            data = self._stream(**options)
            lacking = [name for name in columns if data.features is not None and name not in data.features]
            if lacking:
                found = ", ".join(self._stream().features)
                raise DataError(f"no column {lacking[0]!r}", where=self.where, valid=f"found: {found}")
            batches = data.with_format("arrow").iter(batch_size=BATCH_ROWS)
        while True:
            with explained(self.hub, self.revision):
                batch = next(batches, None)
            if batch is None:
                return
            check_columns(batch.schema, columns, self.where)
            yield from arrow_rows(batch, columns)

    def place(self, row: int) -> str:
        return f"row {row}"

    def _stream(self, **options: Any) -> Any:
        from datasets import load_dataset

        return load_dataset(self.format, data_files=[self.url], split="train", streaming=True, **options)


def listing_of(spec: SourceSpec | SftSpec, data: Path) -> Path:
    """The file that lists the files of a data set at a commit, so that a data folder is complete without a network."""
    assert spec.hub is not None and COMMIT.fullmatch(spec.revision)
    asked = fingerprint([spec.hub, spec.config, spec.data_dir, spec.split, spec.revision])
    return hub_listing(data, f"{spec.hub.replace('/', '--')}-{asked[:16]}")


def list_files(spec: SourceSpec | SftSpec, listing: Path | None = None) -> dict[str, HubFile]:
    """Path -> file, in name order, at the commit that `spec.revision` stands for; as recorded in `listing`, if it is.

    Raises DataError where the data set cannot be reached, has no such split, or holds another format.
    """
    if listing is not None and listing.is_file():
        with understood(listing, hint="delete it: the Hub is then asked again"):
            return {file["path"]: HubFile(**file) for file in read_json(listing)}
    files = _ask_for_files(spec)
    if listing is not None:
        write_json(listing, [asdict(file) for file in files.values()])
    return files


def _ask_for_files(spec: SourceSpec | SftSpec) -> dict[str, HubFile]:
    from datasets import load_dataset_builder

    assert spec.hub is not None
    with explained(spec.hub, spec.revision):
        builder = load_dataset_builder(spec.hub, spec.config, data_dir=spec.data_dir, revision=spec.revision)
    splits = {str(name): urls for name, urls in (builder.config.data_files or {}).items()}
    if spec.split not in splits:
        raise DataError(f"no split {spec.split!r}", where=f"{spec.hub} on the Hub", valid=", ".join(splits) or "none")
    if builder.name not in FORMATS:
        raise DataError(f"its files are {builder.name}", where=f"{spec.hub} on the Hub", valid=" or ".join(FORMATS))
    files = [_file(spec.hub, spec.revision, url, builder.name) for url in splits[spec.split]]
    return {file.path: file for file in sorted(files, key=lambda file: file.path)}


def _file(hub: str, revision: str, url: str, form: str) -> HubFile:
    if match := URL.fullmatch(url):
        return HubFile(hub, match["commit"], match["path"], url, form)
    return HubFile(hub, revision, Path(url).relative_to(Path(hub).resolve()).as_posix(), url, form)


# ---------------------------------------------------------------------------------------------- revisions


def resolve_revision(hub: str, revision: str, data: Path, log: Callable[[str], None], *, look: bool = True) -> str:
    """The commit that `revision` stood for when `data` first saw it.

    The first call records it in `<data>/revisions.json`; a later one that finds the branch elsewhere says so and keeps
    the record, and without a network takes it as it is. look: whether the branch has moved since; else nobody is asked.
    Raises DataError where a commit must be asked for and cannot.
    """
    if COMMIT.fullmatch(revision):
        return revision
    path, key = revisions_file(data), f"{hub}@{revision}"
    pins = _pins(path)
    if key not in pins:
        commit = _commit(hub, revision)
        with _alone(data):  # those who score at the same time must agree, and keep each other's records
            pins = _pins(path)
            if key not in pins:
                pins[key] = {"commit": commit, "date": datetime.date.today().isoformat()}
                write_json(path, pins)
                log(f"{hub}: {revision} is commit {commit}, recorded in {path}")
        look = False
    with understood(path, hint=f"mend or delete {key!r} in it"):
        commit, date = pins[key]["commit"], pins[key]["date"]
    if not look:
        return commit
    with contextlib.suppress(DataError):  # what the record says may be complete on this disk
        newest = _commit(hub, revision)
        if newest != commit:
            log(
                f"{hub}: {revision} has moved to {newest}; this data folder stays at {commit}, read on "
                f"{date} (to move it, delete {key!r} from {path})"
            )
    return commit


def _pins(path: Path) -> dict[str, dict[str, str]]:
    return read_object(path) if path.is_file() else {}


@contextlib.contextmanager
def _alone(data: Path) -> Iterator[None]:
    """No other process is in here meanwhile, where the filesystem knows locks."""
    data.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            held.callback(os.close, lock_folder(data, wait=True))
        yield


def _commit(hub: str, revision: str) -> str:
    from huggingface_hub import HfApi

    with explained(hub, revision):
        commit = HfApi().dataset_info(hub, revision=revision).sha
        assert commit is not None
        return commit


# ---------------------------------------------------------------------------------------------- failures


@contextlib.contextmanager
def explained(hub: str, revision: str, what: str = "data set", refusal: type[MagicError] = DataError) -> Iterator[None]:
    """Failures of the Hub's clients as one `refusal`; a full disk and this project's own errors pass.

    what: a data set, or a model.
    """
    try:
        yield
    except MagicError:
        raise
    except Exception as error:  # huggingface_hub, datasets, httpx, fsspec and pyarrow raise unrelated types
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        problem, hint = _diagnosis(error)
        page = f"{SITE}/{'' if what == 'model' else 'datasets/'}{hub}"
        words = {"what": what, "page": page, "revision": revision}
        raise refusal(problem.format(**words), where=f"{hub} on the Hub", hint=hint.format(**words)) from error


def _diagnosis(error: BaseException) -> tuple[str, str]:
    """The reason why a data set or a model cannot be read, and the next step."""
    causes = list(_causes(error))
    description = "\n".join(f"{[kind.__name__ for kind in type(cause).__mro__]}: {cause}" for cause in causes)
    for pattern, problem, hint in FAILURES:
        if re.search(pattern, description):
            return problem, hint
    answers = [answer for cause in causes if (answer := getattr(cause, "response", None)) is not None]
    if answers:
        return f"the Hub answered {answers[0].status_code}", "wait a little and rerun; what is finished is kept"
    found = f"{type(error).__name__}: {one_line(error)}".replace("{", "{{").replace("}", "}}")
    return f"cannot be read ({found})", "see {page}; of a data set compare config, data_dir and split"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and those it came from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
