"""What a study was begun with, beside its results, so that its units can be found again by its name alone.

In: a study and the folder of its documents. Out: <runs>/<study>/study.yaml and study.json, and the units that follow.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from pathlib import Path

from configs import load as config_files
from configs.artifacts import read_json, write_json
from configs.cost.plan import BYTES_PER_TOKEN, plan_study
from configs.errors import ArtifactError, ResourceError
from configs.layout import shards_dir
from configs.schema import StudyConfig
from configs.workflow.clean import size
from configs.workflow.inputs import source_bytes
from configs.workflow.units import Unit, study_units

SPARE_BYTES = 500e6
"""Kept free on each disk besides what the plan needs."""


def check_disk(study: StudyConfig, documents: Path | None, data: Path, runs: Path) -> None:
    """Refuse to start a study that the disks cannot hold: token shards and runs, without what is there of them."""
    plan = plan_study(study)
    tokens = {
        source: source_bytes(source, documents) / BYTES_PER_TOKEN if count is None else count
        for source, count in plan.shard_tokens.items()
    }
    shards = {shards_dir(data, study.tokenizer.name, source): count * plan.id_bytes for source, count in tokens.items()}
    need: dict[int, float] = defaultdict(float)
    places: dict[int, dict[str, Path]] = defaultdict(dict)
    for option, root, folders in (("--data", data, shards), ("--runs", runs, {runs / study.name: plan.disk_bytes})):
        there = next(path for path in (root, *root.parents) if path.exists())
        disk = _disk(there)
        places[disk][option] = there
        need[disk] += sum(max(0.0, wanted - size(path.resolve())) for path, wanted in folders.items())
    for disk, options in places.items():
        free = shutil.disk_usage(next(iter(options.values()))).free
        if need[disk] + SPARE_BYTES > free:
            raise ResourceError(
                f"the study needs about {(need[disk] + SPARE_BYTES) / 1e9:.1f} GB here, {free / 1e9:.1f} GB are free",
                where=", ".join(map(str, dict.fromkeys(options.values()))),
                hint=f"free disk space, or name another folder with {' or '.join(options)}",
            )


def _disk(path: Path) -> int:
    return path.stat().st_dev


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
