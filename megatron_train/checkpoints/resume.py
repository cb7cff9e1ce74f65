"""Where a run starts: `--resume auto`, `--resume STEP` or `--resume never`.

In: the run folder, locked, and a job for it. Out: a folder in which the start that was asked for is the newest, so that
the loop, which always goes on from the newest whole checkpoint, goes on from there. `auto` keeps the folder as it is
(and a finished run is skipped); a step or `never` starts a finished run again. What was made from other inputs (another
config, other data, another parent) is never gone on from, and only `never` removes it.

Versions of Python and of packages are not inputs: weights and moments are plain tensors in fp32, which the same or a
newer PyTorch reads. A run goes on with other versions, says which they are, and provenance.json keeps those of its
earlier starts.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.artifacts import MANIFEST, read_object, verify_files
from configs.errors import ArtifactError, MagicError
from configs.exports import EXPORT_JSON
from configs.load import load
from configs.schema import TrainConfig
from megatron_train.checkpoints.checkpoint import FOLDER_NAME, complete

if TYPE_CHECKING:
    from megatron_train.job import TrainJob


SHOWN = 8
"""Differences that a message names."""
STARTED_ON = ("git_commit", "python", "packages", "hardware", "processes")
"""Keys of provenance.json that a later start of the same run may change."""


def check_start(job: TrainJob) -> None:
    """Raise ArtifactError where the run cannot start in its folder as it was asked to (main rank); touches nothing.

    That is where anything there was made from other inputs, or the checkpoint of the step is missing or damaged.
    """
    if job.resume == "never":
        return
    if other := _find_other_inputs(job):
        path, inputs = other
        changes = [f"\n    {line}" for line in _differences(job, inputs)]
        raise ArtifactError(
            f"{path.relative_to(job.folder.path)} was made from other inputs than this run"
            + ("".join(changes) or " (another config, other data or another parent)"),
            where=job.folder.path,
            hint="--study NAME (or --runs DIR) keeps both; --resume never removes what is there and starts again "
            "(in a study: delete the folder)",
        )
    if job.resume != "auto":
        _check_step(job.folder.checkpoints, job.resume)


def prepare_resume(job: TrainJob) -> None:
    """Remove what lies beyond the start asked for, after `check_start` (main rank)."""
    folder, resume = job.folder, job.resume
    # metrics.jsonl alone is worth nothing: without a checkpoint the run starts again from its first step.
    worthless = not _files_naming_inputs(job) and _inputs_in(folder.provenance) != job.inputs
    if resume == "auto" and worthless and folder.path.exists():
        print(f"{folder.name}: removing what a run of other inputs left before its first checkpoint", flush=True)
        shutil.rmtree(folder.path)
    folder.done.unlink(missing_ok=True)  # first: half of a folder must not seem whole
    if resume == "never":
        shutil.rmtree(folder.path, ignore_errors=True)
    elif resume != "auto":
        # Newest first, checkpoints before exports: an interruption here leaves the folder of a run stopped earlier.
        for kind in ("checkpoints", "export"):
            for path in sorted((folder.path / kind).glob("step-*"), reverse=True):
                if (match := FOLDER_NAME.fullmatch(path.name)) and int(match.group(1)) > resume:
                    shutil.rmtree(path)


def earlier_starts(job: TrainJob, now: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return on what the run was started before, oldest first, where that differs from `now` (main rank).

    `now` is the content of provenance.json for this start. Prints the versions that have changed.
    """
    with contextlib.suppress(ArtifactError):
        record = read_object(job.folder.provenance)
        if record.get("inputs") == job.inputs and complete(job.folder.checkpoints):
            before = {key: record.get(key) for key in STARTED_ON}
            starts = [*record.get("earlier_starts", []), before]
            if changes := _version_changes(before, now):
                print(f"{job.folder.name}: goes on with other versions, results may differ by rounding: {changes}")
            return starts if before != {key: now[key] for key in STARTED_ON} else starts[:-1]
    return []


def _version_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """`torch 2.13.0 -> 2.15.0, ...`; empty where none differs."""
    old, new = ({"Python": start["python"]} | (start["packages"] or {}) for start in (before, now))
    names = [name for name in old | new if old.get(name) != new.get(name)]
    return ", ".join(f"{name} {old.get(name, 'none')} -> {new.get(name, 'none')}" for name in names)


def _files_naming_inputs(job: TrainJob) -> list[Path]:
    """Files that say which inputs DONE, a checkpoint or an export is of: what of a run is worth keeping."""
    folder = job.folder
    checkpoints = [path / MANIFEST for _, path in complete(folder.checkpoints)]
    files = [folder.done, *checkpoints, *sorted((folder.path / "export").glob(f"step-*/{EXPORT_JSON}"))]
    return [path for path in files if path.is_file()]


def _find_other_inputs(job: TrainJob) -> tuple[Path, str] | None:
    """The first file of the folder that is of other inputs, and those; None where there is nothing to lose."""
    if not (files := _files_naming_inputs(job)):
        return None
    if job.folder.provenance.is_file():
        files.append(job.folder.provenance)  # of metrics.jsonl, which no checkpoint vouches for
    for path in files:
        if (inputs := _inputs_in(path)) is not None and inputs != job.inputs:
            return path, inputs
    return None


def _inputs_in(path: Path) -> str | None:
    """Fingerprint of the inputs that a file names; None where the file is missing or damaged."""
    with contextlib.suppress(ArtifactError):
        return str(read_object(path).get("inputs"))
    return None


def _differences(job: TrainJob, inputs: str) -> list[str]:
    """`key: before -> now` of what distinguishes these inputs from the job's, as far as the folder tells."""
    before: dict[str, Any] = {}
    with contextlib.suppress(MagicError):
        record = read_object(job.folder.provenance)
        if record.get("inputs") == inputs:  # otherwise config and record are of a later run
            config = load(TrainConfig, job.folder.path / "config.yaml").identity()
            before = _flat(config | {"fingerprints": record.get("data"), "parent": record.get("parent")})
    if not before:
        return []
    now = _flat(job.config.identity() | {"fingerprints": job.data_fingerprints, "parent": job.parent_facts})
    keys = [key for key in before | now if before.get(key) != now.get(key) and key != "parent.export"]
    if "parent.sha256" in keys:
        keys.insert(keys.index("parent.sha256"), "parent.export")
    lines = [f"{key}: {_shown(before.get(key))} -> {_shown(now.get(key))}" for key in keys]
    return lines[:SHOWN] + ([f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else [])


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"optimizer": {"lr": 1}} -> {"optimizer.lr": 1}."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        found |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return found


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return f"{text[:12]}..." if len(text) == 64 else text


def _check_step(checkpoints: Path, step: int) -> None:
    found = dict(complete(checkpoints))
    if step not in found:
        raise ArtifactError(
            f"there is no checkpoint of step {step}",
            where=checkpoints,
            valid=", ".join(map(str, found)) or "none: the run has no checkpoint",
        )
    verify_files(found[step], read_object(found[step] / MANIFEST).get("files", {}), deep=True)
