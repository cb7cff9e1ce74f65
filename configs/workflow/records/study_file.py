"""The study as it was begun, beside its results, so that its units can be found again by its name alone.

In: a study and the folder of its documents. Out: <runs>/<study>/study.yaml and study.json, and the units that follow.
"""

from __future__ import annotations

from pathlib import Path

from configs import load as config_files
from configs.artifacts import read_json, write_json
from configs.errors import ArtifactError
from configs.layout import StudyFolder
from configs.schema import StudyConfig


def save_study(study: StudyConfig, documents: Path | None, runs: Path) -> None:
    """Write what `open_study` reads."""
    folder = StudyFolder(runs, study.name)
    config_files.save(study, folder.config)
    write_json(folder.path / "study.json", {"documents_root": str(documents) if documents else None})


def open_study(folder: StudyFolder) -> tuple[StudyConfig, Path | None]:
    """(study, folder of its documents) as it was begun. Raises ArtifactError where it was not."""
    if not folder.config.is_file():
        known = sorted(path.parent.name for path in folder.runs.glob("*/study.yaml"))
        raise ArtifactError("no such study", where=folder.path, valid=", ".join(known) or "none has been started here")
    study = config_files.load(StudyConfig, folder.config)
    root = read_json(folder.path / "study.json").get("documents_root")
    return study, Path(root) if root else None
