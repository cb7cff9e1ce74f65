"""How far a unit is, from the lines that it has written.

In: <run>/metrics.jsonl of a training, the log of others. Out: shares and words for people.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.layout import RunFolder
from configs.workflow.records.records import units_dir
from configs.workflow.units import TRAININGS, Unit


def last_step(folder: RunFolder) -> dict[str, Any]:
    """The last whole step line of a run, {} where there is none yet."""
    for line in reversed(_last_lines(folder.metrics)):
        with contextlib.suppress(json.JSONDecodeError):
            value = json.loads(line)
            if "loss" in value:
                return dict(value)
    return {}


def _last_lines(path: Path) -> list[str]:
    """Whole lines among the last 4 KiB of a file; none where there is no file."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, 2) - 4096))
            return stream.read().decode(errors="replace").split("\n")[:-1]
    except FileNotFoundError:
        return []


def log_lines(folder: Path, unit: str) -> list[str]:
    """The last ones that a unit has written, without what would steer a terminal; folder: <runs>/<study>."""
    lines = _last_lines(units_dir(folder) / f"{unit}.log")
    return ["".join(c if c.isprintable() else " " for c in line).rstrip() for line in lines if line.strip()]


def share_done(unit: Unit) -> float:
    """Share of a running training that is done, by its steps; 0 for other units."""
    if unit.kind not in TRAININGS or unit.folder is None or unit.run is None:
        return 0.0
    return min(1.0, last_step(unit.folder).get("step", 0) / max(1, unit.run.steps))


def describe_work(unit: Unit, folder: Path) -> str:
    """What a unit at work does: `240m/V1P0/seed0/pt step 1200 loss 3.21`, or the last line that tokenizing has logged.

    folder: <runs>/<study>
    """
    if unit.kind == "tokenize":
        lines = log_lines(folder, unit.name)
        return lines[-1] if lines else unit.name
    line = last_step(unit.folder) if unit.folder and unit.kind in TRAININGS else {}
    return f"{unit.folder.name} step {line['step']} loss {line['loss']:.2f}" if line and unit.folder else unit.name


def overall_share(units: Sequence[Unit], weight: Mapping[str, float], done: set[str], running: Sequence[Unit]) -> float:
    """Share of the units' weight that is done."""
    total = sum(weight[unit.name] for unit in units)
    at_work = sum(weight[unit.name] * share_done(unit) for unit in running)
    return (sum(weight[name] for name in done) + at_work) / total if total else 1.0
