"""What a study was begun with, beside its results, so that its units can be found again by its name alone.

In: a study and the folder of its documents. Out: <runs>/<study>/study.yaml and study.json, and the units that follow.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from configs import load as config_files
from configs.artifacts import read_json, write_json
from configs.errors import ArtifactError, ConfigError, DataError, ResourceError
from configs.plan import plan_study
from configs.schema import StudyConfig
from configs.workflow.units import Unit, study_units

SPARE_BYTES = 500e6
"""Kept free on the disk besides what the plan needs."""


def documents_of(study: StudyConfig, given: str | None, data: Path) -> Path | None:
    """The folder with corpora/ and benchmarks/; None on the Hub. Raises DataError where it is not there."""
    if study.synthetic:
        return data / "microworld"  # generated when it is tokenised
    if study.data.kind == "hub":
        return None
    root = Path(given or study.data.root or "")
    if not str(given or study.data.root or ""):
        raise ConfigError(
            f"study {study.name} reads local documents, and none are named",
            hint=f"study.py run {study.name} --documents <folder>, or make study STUDY=... DATA=<folder>",
        )
    for part in ("corpora", "benchmarks"):
        if not (root / part).is_dir():
            raise DataError("data folder is missing", where=root / part, valid="a folder with corpora/ and benchmarks/")
    return root.resolve()


def check_disk(study: StudyConfig, runs: Path) -> None:
    """Refuse to start a study that the disk cannot hold."""
    runs.mkdir(parents=True, exist_ok=True)
    need, free = plan_study(study).disk_bytes + SPARE_BYTES, shutil.disk_usage(runs).free
    if need > free:
        raise ResourceError(
            f"the study needs about {need / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
            where=runs,
            hint="free disk space, or name another folder with --runs",
        )


def begin(study: StudyConfig, documents: Path | None, runs: Path) -> None:
    """What `begun` reads."""
    config_files.save(study, runs / study.name / "study.yaml")
    write_json(runs / study.name / "study.json", {"documents_root": str(documents) if documents else None})


def begun(name: str, runs: Path) -> tuple[StudyConfig, Path | None, list[Unit]]:
    """(study, folder of its documents, its units) as <runs>/<study> has them. Raises ArtifactError for another."""
    folder = runs / name
    if not (folder / "study.yaml").is_file():
        known = sorted(p.parent.name for p in runs.glob("*/study.yaml"))
        raise ArtifactError("no such study", where=folder, valid=", ".join(known) or "none has been started here")
    study = config_files.load(StudyConfig, folder / "study.yaml")
    root = read_json(folder / "study.json").get("documents_root")
    documents = Path(root) if root else None
    return study, documents, study_units(study, runs, documents)
