"""What of a study is done, by its records: a finished unit whose inputs have changed since is stale, and says why.

In: units, and <runs>/<study>/units/<kind>/<what>.json, written when a unit is done: the configuration, the code and the
results that it was made from, and the fingerprint of what came out. Out: the `State` of each unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from configs.artifacts import read_json, write_json
from configs.errors import ArtifactError
from configs.runtime.versions import code_sha256
from configs.workflow.units import CODE, Unit

VERSION = 2


@dataclass(frozen=True)
class Record:
    """What is recorded of a finished unit."""

    identity: dict[str, Any]
    """`Unit.identity`"""
    code: dict[str, str]
    """Part of the project -> `code_sha256`, of the parts that made it."""
    inputs: dict[str, str]
    """Name of each input -> the product that was read."""
    product: str
    """Fingerprint of what came out."""
    started: str
    """ISO 8601, UTC."""
    seconds: float
    host: str
    hardware: str | None = None
    git_commit: str | None = None
    kept: tuple[str, ...] = ()
    """What had changed when a user chose to keep it."""
    version: int = VERSION


@dataclass(frozen=True)
class State:
    kind: Literal["done", "stale", "missing"]
    reasons: tuple[str, ...] = ()
    """What has changed since a stale one was made."""
    took_s: float | None = field(default=None, compare=False)
    """How long the unit took; None where it has no record."""


def units_dir(folder: Path) -> Path:
    """folder: <runs>/<study>, here and below. Holds <unit>.json, .log and .stopped (asked to end)."""
    return folder / "units"


def record_file(folder: Path, unit: str) -> Path:
    return units_dir(folder) / f"{unit}.json"


def write_record(folder: Path, unit: Unit, inputs: Mapping[str, str], product: str, **about: Any) -> None:
    """Record a unit that is done. about: started, seconds, host, hardware, git_commit."""
    record = Record(dict(unit.identity), _code(unit), dict(inputs), product, **about)
    write_json(record_file(folder, unit.name), asdict(record), sealed=True)


def _code(unit: Unit) -> dict[str, str]:
    return {part: code_sha256(part) for part in CODE[unit.kind]}


def products_read(folder: Path, unit: Unit) -> dict[str, str]:
    """Name of each input that has a record -> its product."""
    return {name: found.product for name in unit.inputs if (found := read_record(folder, name)) is not None}


def keep_record(folder: Path, unit: Unit, reasons: Sequence[str]) -> None:
    """Take a stale unit as it is: its record then says that it matches, and what it does not match."""
    record = read_record(folder, unit.name)
    assert record is not None, "only what has a record is stale"
    inputs = products_read(folder, unit)
    kept = tuple(dict.fromkeys((*record.kept, *reasons)))
    changed = replace(record, identity=dict(unit.identity), code=_code(unit), inputs=inputs, kept=kept)
    write_json(record_file(folder, unit.name), asdict(changed), sealed=True)


def read_record(folder: Path, unit: str) -> Record | None:
    """The record of a unit, or None. Raises ArtifactError for one that is damaged or of another version."""
    path = record_file(folder, unit)
    if not path.is_file():
        return None
    found = read_json(path)
    if not isinstance(found, dict) or found.get("version") != VERSION or set(found) != set(Record.__annotations__):
        raise ArtifactError(
            "not a record of this version", where=path, hint="delete it: the unit is then checked again"
        )
    return Record(**found | {"kept": tuple(found["kept"])})


def states(folder: Path, units: Sequence[Unit]) -> dict[str, State]:
    """The state of each unit; units: each behind its inputs."""
    records = {unit.name: read_record(folder, unit.name) for unit in units}
    found: dict[str, State] = {}
    for unit in units:
        record = records[unit.name]
        if record is None:
            found[unit.name] = State("missing")
            continue
        reasons = [f"{key} {old} -> {new}" for key, old, new in changes(record.identity, unit.identity)]
        reasons += [f"code of {part}" for part in CODE[unit.kind] if record.code.get(part) != code_sha256(part)]
        for name in unit.inputs:
            before = records[name]
            if found[name].kind != "done":
                reasons.append(f"{name} is {found[name].kind}")
            elif before is not None and record.inputs.get(name) != before.product:
                reasons.append(f"{name} was made again, and came out otherwise")
        found[unit.name] = State("stale" if reasons else "done", tuple(reasons), record.seconds)
    return found


def changes(old: Any, new: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted key, old value, new value) of what differs between two JSON trees."""
    if old == new:
        return []
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = sorted({*old, *new})
        return [one for k in keys for one in changes(old.get(k), new.get(k), f"{key}.{k}" if key else str(k))]
    # JSON has no tuples: a record that was read holds lists where the unit has tuples.
    if isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [one for i, (a, b) in pairs for one in changes(a, b, f"{key}.{i}")]
    same = list(old) == list(new) if isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)) else old == new
    return [] if same else [(key, old, new)]
