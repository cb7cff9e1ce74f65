"""Where scores come from: score files, the checkpoints in them, the runs that trained these, the records of the units.

In: fingerprints of cells of metrics.parquet; a study's folder, or a published one. Out: plain dictionaries as they go
into JSON, every path below the study's folder. What nobody recorded is None.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from analysis.panel.collect import CheckpointKey
from analysis.scores.score_files import read_metadata, read_score_file, score_files
from configs.artifacts import fingerprint, read_object, sha256_file
from configs.layout import RunFolder, StudyFolder, stage_name
from configs.metrics import KEYS
from configs.runtime.versions import code_sha256
from configs.workflow.records.records import read_record
from configs.workflow.units import CODE

Facts = dict[str, Any]


def score_files_behind(study: StudyFolder, cells: Collection[str]) -> list[Facts]:
    """Score files with a cell of one of these fingerprints: path, sha256, bytes, metadata and checkpoints of each."""
    files = {path: sha256_file(path) for path in score_files(study)}
    contents = {path: _contents(path) for path in files}
    behind: dict[tuple[Any, ...], list[Path]] = defaultdict(list)
    for path, (found, _) in contents.items():
        for cell in found:
            behind[cell].append(path)
    wanted: set[Path] = set()
    # Thousands of cells share a few sets of files: each set is hashed once.
    for paths in {tuple(paths) for paths in behind.values()}:
        if fingerprint(sorted(files[path] for path in paths)) in cells:
            wanted.update(paths)
    return [
        {
            "path": study.relative(path),
            "sha256": files[path],
            "bytes": path.stat().st_size,
            "metadata": {key: values[0] for key, values in read_metadata((path,)).items()},
            "checkpoints": contents[path][1],
        }
        for path in sorted(wanted)
    ]


def _contents(path: Path) -> tuple[list[tuple[Any, ...]], list[Facts]]:
    """(cells, checkpoints) of a score file."""
    frame = read_score_file(path).table.select([*KEYS, "checkpoint"]).to_pandas().astype(object).drop_duplicates()
    places = [*CheckpointKey._fields, "tokens", "checkpoint"]
    checkpoints = frame[places].drop_duplicates().to_dict("records")
    return list(frame.itertuples(index=False, name=None)), [{str(k): v for k, v in one.items()} for one in checkpoints]


def checkpoints_in(files: Iterable[Facts]) -> list[CheckpointKey]:
    return [_checkpoint(known) for file in files for known in file["checkpoints"]]


def _checkpoint(known: Facts) -> CheckpointKey:
    return CheckpointKey(*(known[name] for name in CheckpointKey._fields))


def runs_behind(study: StudyFolder, files: Iterable[Facts]) -> dict[str, Facts]:
    """Name of each run below the study's folder, parents of fine-tuning too -> its facts."""
    runs: set[RunFolder] = set()
    for checkpoint in checkpoints_in(files):
        run = RunFolder(study, *checkpoint.run)
        runs |= {run, replace(run, stage=stage_name())}
    return {run.name: _run(run) for run in sorted(runs, key=lambda run: run.name)}


def _run(run: RunFolder) -> Facts:
    config = run.path / "config.yaml"
    origin = _object(run.provenance) or {}
    pretraining = replace(run, stage=stage_name())
    model = run.name.rpartition("/")[0]
    facts: Facts = {
        "config": {"path": f"{run.name}/config.yaml", "sha256": sha256_file(config)} if config.is_file() else None,
        "done": _object(run.done),
        "unit": f"finetune/{model}/{run.recipe}" if run.recipe else f"pretrain/{model}",
    }
    keys = ("command", "git_commit", "python", "packages", "hardware", "processes", "data", "manifests", "parent")
    facts |= {key: origin.get(key) for key in keys}
    if facts["parent"]:
        exports = (_object(pretraining.done) or {}).get("export", {})
        same = facts["parent"].get("sha256") in exports.values()
        facts["parent"] = facts["parent"] | {"is_export_of_pt": same if exports else None}
    return facts


def find_doubts(files: Iterable[Facts], runs: dict[str, Facts], units: dict[str, Facts | None]) -> list[str]:
    """Sentences on score files that no unit's record names, and on score files and fine-tunings whose weights the run
    before them did not export."""
    made = {unit["product"] for name, unit in units.items() if unit and name.startswith("score/")}
    wrong = []
    for file in files:
        if made and fingerprint([file["sha256"]]) not in made:
            wrong.append(f"{file['path']}: altered since it was scored, or scored by something else than its unit")
        for checkpoint in file["checkpoints"]:
            if _is_foreign(checkpoint, runs):
                wrong.append(f"{file['path']}: its weights {checkpoint['checkpoint'][:16]} are no export of its run")
    strangers = [name for name, run in runs.items() if run["parent"] and run["parent"]["is_export_of_pt"] is False]
    return [*wrong, *(f"{name}: its parent is no export of the pt beside it" for name in strangers)]


def _is_foreign(checkpoint: Facts, runs: dict[str, Facts]) -> bool:
    """Does its run say that it exported other weights at this step?"""
    at = _checkpoint(checkpoint)
    exports = (runs[at.folder]["done"] or {}).get("export", {})
    return str(at.step) in exports and exports[str(at.step)] != checkpoint["checkpoint"]


def units_behind(folder: Path, files: Iterable[Facts], runs: dict[str, Facts]) -> dict[str, Facts | None]:
    """Unit -> its record, None where there is none; in the order in which they were done."""
    scores = []
    for at in checkpoints_in(files):
        # The record of the last checkpoint is named `last`, whatever its step.
        here = [f"score/{at.folder}/{step}" for step in (f"step-{at.step:07d}", "last")]
        scores.append(next((name for name in here if read_record(folder, name) is not None), here[-1]))
    trainings = sorted((run["unit"] for run in runs.values()), reverse=True)
    names = dict.fromkeys(["tokenize", *trainings, *scores, "analyse"])
    return {name: _unit(folder, name) for name in names}


def _unit(folder: Path, name: str) -> Facts | None:
    record = read_record(folder, name)
    if record is None:
        return None
    changed = [part for part in CODE[name.partition("/")[0]] if record.code.get(part) != code_sha256(part)]
    return asdict(record) | {"code_changed_since": changed}


def _object(path: Path) -> Facts | None:
    """Content of a JSON file, None where there is no file. Raises ArtifactError for anything but an object."""
    return read_object(path) if path.is_file() else None
