"""Where scores come from: score files, the checkpoints in them, the runs that trained these, the records of the units.

In: fingerprints of cells of metrics.parquet; a study's folder, or a published one. Out: plain dictionaries as they go
into JSON, every path below the study's folder. What nobody recorded is None.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from analysis.panel.collect import CheckpointKey
from configs.artifacts import fingerprint, read_json, sha256_file
from configs.errors import ArtifactError
from configs.layout import StudyFolder
from configs.runtime.versions import code_sha256
from configs.workflow.records.records import read_record
from configs.workflow.units import CODE

Facts = dict[str, Any]


def score_files_behind(study: StudyFolder, cells: Collection[str]) -> list[Facts]:
    """The score files of which a cell has one of these fingerprints: path, sha256, bytes, metadata, checkpoints."""
    from analysis.scores.score_files import read_metadata, score_files

    files = {path: sha256_file(path) for path in score_files(study)}
    contents = {path: _contents(path) for path in files}
    behind: dict[tuple[Any, ...], list[Path]] = defaultdict(list)
    for path, (found, _) in contents.items():
        for cell in found:
            behind[cell].append(path)
    wanted: set[Path] = set()
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
    from analysis.scores.score_files import read_score_file
    from configs.metrics import KEYS

    frame = read_score_file(path).table.select([*KEYS, "checkpoint"]).to_pandas().astype(object).drop_duplicates()
    places = [*CheckpointKey._fields, "tokens", "checkpoint"]
    checkpoints = frame[places].drop_duplicates().to_dict("records")
    return list(frame.itertuples(index=False, name=None)), [{str(k): v for k, v in one.items()} for one in checkpoints]


def checkpoint_of(checkpoint: Facts) -> CheckpointKey:
    return CheckpointKey(*(checkpoint[name] for name in CheckpointKey._fields))


def runs_behind(folder: Path, files: Iterable[Facts]) -> dict[str, Facts]:
    """Name of each run below the study's folder, parents of fine-tuning too -> its facts; folder: <runs>/<study>."""
    names: dict[str, Facts] = {}
    for one in (checkpoint_of(checkpoint) for file in files for checkpoint in file["checkpoints"]):
        if one.recipe:
            names.setdefault(one._replace(stage="PT", recipe="").folder, {})
        names.setdefault(one.folder, {})
    return {name: _run(folder, name) for name in sorted(names)}


def _run(folder: Path, name: str) -> Facts:
    config = folder / name / "config.yaml"
    origin, done = (_object(folder / name / file) for file in ("provenance.json", "DONE"))
    facts: Facts = {
        "config": {"path": f"{name}/config.yaml", "sha256": sha256_file(config)} if config.is_file() else None,
        "done": done,
        "unit": _training_unit(name),
    }
    keys = ("command", "git_commit", "python", "packages", "hardware", "processes", "data", "manifests", "parent")
    facts |= {key: (origin or {}).get(key) for key in keys}
    if facts["parent"]:
        before = _object(folder / name.rpartition("/")[0] / "pt" / "DONE") or {}
        exports = before.get("export", {})
        same = facts["parent"].get("sha256") in exports.values()
        facts["parent"] = facts["parent"] | {"is_export_of_pt": same if exports else None}
    return facts


def _training_unit(run: str) -> str:
    """`240m/V1P0/seed0/sft-mini` -> `finetune/240m/V1P0/seed0/mini`"""
    model, _, stage = run.rpartition("/")
    return f"pretrain/{model}" if stage == "pt" else f"finetune/{model}/{stage.removeprefix('sft-')}"


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
    place = checkpoint_of(checkpoint)
    exports = (runs[place.folder]["done"] or {}).get("export", {})
    return str(place.step) in exports and exports[str(place.step)] != checkpoint["checkpoint"]


def units_behind(folder: Path, files: Iterable[Facts], runs: dict[str, Facts]) -> dict[str, Facts | None]:
    """Unit -> its record, None where there is none; in the order in which they were done."""
    scores = []
    for place in (checkpoint_of(checkpoint) for file in files for checkpoint in file["checkpoints"]):
        here = [f"score/{place.folder}/{step}" for step in (f"step-{place.step:07d}", "last")]
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
    """Of a JSON file; None where there is none. Raises ArtifactError for something else."""
    if not path.is_file():
        return None
    value = read_json(path)
    if not isinstance(value, dict):
        raise ArtifactError("not a JSON object", where=path, hint="rerun the training")
    return value
