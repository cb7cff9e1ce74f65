"""What of a study may go, how large it is, and what is no longer possible without it.

In: a study's folder and units, the folder of its data. Out: `Removal`s, and on request they are removed. Scores,
metrics, report, configs and records always stay, so that the study is as finished afterwards as it was before. Nothing
outside the study's folder and <data>/index is touched, and no link is followed.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.artifacts import lock_folder, read_json, size_bytes
from configs.errors import ArtifactError, ResourceError
from configs.layout import index_dir
from configs.runtime.locks import holder
from configs.workflow.records.leases import current_lease, study_lock
from configs.workflow.records.products import step_of
from configs.workflow.records.records import states, units_dir
from configs.workflow.units import TRAININGS, Unit

KINDS = {
    "checkpoints": "of finished trainings; afterwards --resume STEP cannot go back to one",
    "exports": "of scored checkpoints; afterwards to score, compare or fine-tune one takes its training again",
    "plans": "compiled prompts, made again when something is scored",
    "index": "orders of training, built again when something is trained",
    "leftovers": "of killed processes, worth nothing",
    "logs": "of units that are done: nothing else has what they printed",
    "study": "all of it, with scores and report; its token shards stay",
}
"""Kind of what goes -> what it is, and what is lost with it."""
LEFT_S = 3600.0
"""A temporary file that was written to more recently may be somebody's work."""
TEMPORARY = re.compile(r"\..+\.tmp")
SHOWN = 4


@dataclass(frozen=True)
class Removal:
    kind: str
    path: Path
    bytes: int


def removals(
    folder: Path, units: Sequence[Unit], data: Path, exports: bool = False, everything: bool = False
) -> list[Removal]:
    """What may go, by kind; folder: <runs>/<study>.

    exports: also those whose checkpoint is scored and, of pretraining, fine-tuned. everything: the whole study.
    Raises ArtifactError for a whole study whose folder is a link.
    """
    if everything:
        if folder.is_symlink():
            raise ArtifactError("is a link", where=folder, hint=f"remove it, and {folder.resolve()}, by hand")
        return [Removal("study", folder, size_bytes(folder)), *_sized(_index(folder, units, data))]
    done = {name for name, state in states(folder, units).items() if state.kind == "done"}
    found = [
        *_checkpoints(units),
        *(_exports(units, done) if exports else ()),
        *(("plans", path) for path in [folder / "plans"] if path.is_dir()),
        *_index(folder, units, data),
        *_leftovers(folder),
        *(("logs", log) for name in sorted(done) if (log := units_dir(folder) / f"{name}.log").is_file()),
    ]
    return _sized([(kind, path) for kind, path in found if _inside(path, folder, data)])


def clean(
    folder: Path, units: Sequence[Unit], data: Path, exports: bool = False, everything: bool = False
) -> list[Removal]:
    """Remove what `removals` finds, and return it. Raises ResourceError where somebody drives the study or does a unit.

    Each goes under a temporary name first: what a kill leaves is a leftover, never half of something.
    """
    with study_lock(folder):
        busy = [unit.name for unit in units if current_lease(folder, unit.name)]
        by_hand = (path for path in folder.glob("*/*/seed*/.*.lock") if holder(path))  # also of runs that are no unit
        busy += [path.with_name(path.stem.removeprefix(".")).relative_to(folder).as_posix() for path in by_hand]
        if busy:
            raise ResourceError(f"another process is at work on {busy[0]}", where=folder, hint="wait for it, or end it")
        found = removals(folder, units, data, exports, everything)
        for removal in found:
            if removal.path != folder:
                remove(removal.path)
        doomed = _rename_aside(folder) if everything else None
    if doomed is not None:  # over NFS the lock's open file would keep its folder
        shutil.rmtree(doomed)
    return found


def _rename_aside(path: Path) -> Path:
    """Give a path a temporary name, and return that."""
    return path.rename(path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old.tmp"))


def remove(path: Path) -> None:
    """A file or folder, links inside it as links."""
    doomed = _rename_aside(path)
    if doomed.is_dir() and not doomed.is_symlink():
        shutil.rmtree(doomed)
    else:
        doomed.unlink()


def format_removals(found: Sequence[Removal], folder: Path, removed: bool) -> str:
    """What `study.py clean` prints."""
    if not found:
        return f"{folder}: nothing to remove"
    total = sum(removal.bytes for removal in found)
    lines = [f"{folder}: {_bytes(total)} {'removed' if removed else 'may go'}"]
    for kind, meaning in KINDS.items():
        mine = [removal for removal in found if removal.kind == kind]
        if not mine:
            continue
        lines.append(f"  {kind:<12}{_bytes(sum(removal.bytes for removal in mine)):>10}{len(mine):>6}  {meaning}")
        shown = [_name(removal.path, folder) for removal in mine[:SHOWN]]
        more = f" and {len(mine) - SHOWN} more" if len(mine) > SHOWN else ""
        lines.append(f"{'':<32}{', '.join(shown)}{more}")
    return "\n".join(lines if removed else [*lines, "nothing was removed; --yes removes it"])


def _bytes(count: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:,.1f} {unit}"
    return f"{count} B"


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else f"<data>/index/{path.name[:8]}"


# ---------------------------------------------------------------------------------------------- what there is


def _checkpoints(units: Sequence[Unit]) -> Iterator[tuple[str, Path]]:
    for unit in units:
        run = unit.folder if unit.kind in TRAININGS else None
        if run is not None and run.done.is_file() and run.checkpoints.is_dir():
            yield "checkpoints", run.checkpoints


def _exports(units: Sequence[Unit], done: set[str]) -> Iterator[tuple[str, Path]]:
    """Exports that are scored. A pretraining's last one stays while a fine-tuning that begins with it is not done."""
    needed = {name for unit in units if unit.kind == "finetune" and unit.name not in done for name in unit.inputs}
    scored = [unit for unit in units if unit.kind == "score" and unit.name in done]
    for unit in scored:
        if unit.folder is None or not unit.folder.done.is_file():
            continue
        export = unit.folder.export(step_of(unit))
        # A pretraining hands on its last export only.
        begins_another = unit.step is None and unit.inputs[0] in needed
        if not begins_another and unit.folder.score_file(export).is_file() and export.is_dir():
            yield "exports", export


def _index(folder: Path, units: Sequence[Unit], data: Path) -> list[tuple[str, Path]]:
    """The indices of the blends of this study's finished trainings."""
    blends = set()
    for unit in units:
        if unit.kind == "pretrain" and unit.folder is not None and unit.folder.done.is_file():
            origin = unit.folder.provenance
            blend = (read_json(origin).get("data") or {}).get("blend") if origin.is_file() else None
            if isinstance(blend, str) and re.fullmatch("[0-9a-f]{64}", blend):
                blends.add(blend)
    found = [index_dir(data) / blend for blend in sorted(blends)]
    return [("index", path) for path in found if path.is_dir() and _inside(path, folder, data)]


def _leftovers(folder: Path) -> Iterator[tuple[str, Path]]:
    """Temporary files and folders that nobody holds, and nobody has written to for a while."""
    for at, folders, files in os.walk(folder):
        for name in [name for name in (*folders, *files) if TEMPORARY.fullmatch(name)]:
            path = Path(at) / name
            if name in folders:
                folders.remove(name)  # what is in it goes with it
            if not _held(path):
                yield "leftovers", path


def _held(path: Path) -> bool:
    newest = path.lstat().st_mtime
    if path.is_dir() and not path.is_symlink():
        with contextlib.suppress(OSError):  # a filesystem without locks; its age has to do
            try:
                os.close(lock_folder(path))
            except BlockingIOError:
                return True
        newest = max([newest, *((Path(at) / f).lstat().st_mtime for at, _, names in os.walk(path) for f in names)])
    return time.time() - newest < LEFT_S


def _inside(path: Path, folder: Path, data: Path) -> bool:
    """No link, and no link leads to it from the study's folder or the index."""
    if stat.S_ISLNK(path.lstat().st_mode):
        return False
    at = path.parent.resolve()
    return any(at.is_relative_to(place.resolve()) for place in (folder, index_dir(data)))


def _sized(found: Sequence[tuple[str, Path]]) -> list[Removal]:
    order = list(KINDS)
    return sorted((Removal(kind, path, size_bytes(path)) for kind, path in found), key=lambda r: order.index(r.kind))
