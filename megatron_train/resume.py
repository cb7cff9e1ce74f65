"""Where a run starts: `--resume auto`, `--resume STEP` or `--resume never`.

In: the run folder and what was asked for. Out: a folder in which that start is the newest, so that the loop, which
always goes on from the newest whole checkpoint, goes on from there. `auto` leaves the folder as it is (and a finished
run is skipped); a step or `never` starts a finished run again.
"""

from __future__ import annotations

import shutil
from typing import Literal

from configs.artifacts import MANIFEST, read_object, verify_files
from configs.errors import ArtifactError
from configs.layout import RunFolder
from megatron_train.checkpoint import FOLDER_NAME, complete

Resume = int | Literal["auto", "never"]


def make_way(folder: RunFolder, inputs: str, resume: Resume) -> None:
    """Remove what lies beyond the start asked for, once it is certain that the run can start there (main rank).

    Raises ArtifactError, and touches nothing, where that checkpoint is missing, damaged, or of other inputs.
    """
    if resume == "never":
        shutil.rmtree(folder.path, ignore_errors=True)
    elif resume != "auto":
        _check(folder, inputs, resume)
        folder.done.unlink(missing_ok=True)
        # Newest first, checkpoints before exports: an interruption here leaves the folder of a run stopped earlier.
        for kind in ("checkpoints", "export"):
            for path in sorted((folder.path / kind).glob("step-*"), reverse=True):
                if (match := FOLDER_NAME.fullmatch(path.name)) and int(match.group(1)) > resume:
                    shutil.rmtree(path)


def _check(folder: RunFolder, inputs: str, step: int) -> None:
    checkpoints = folder.path / "checkpoints"
    found = dict(complete(checkpoints))
    if step not in found:
        raise ArtifactError(
            f"there is no checkpoint of step {step}",
            where=checkpoints,
            valid=", ".join(map(str, found)) or "none: the run has no checkpoint",
        )
    manifest = read_object(found[step] / MANIFEST)
    if manifest.get("inputs") != inputs:
        raise ArtifactError(
            "this checkpoint was made from other inputs (another config, other data or another parent)",
            where=found[step],
            hint="--resume never, to remove the run and start it again",
        )
    verify_files(found[step], manifest.get("files", {}), deep=True)
