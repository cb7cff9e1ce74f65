"""Score files to checked Arrow tables, one at a time.

In: <runs>/<study>/scores/**/*.parquet, one row per example and checkpoint, any folder depth. Out: `ScoreFile`s. Nothing
is believed before it is checked: a file that is truncated, lacks a column or holds an impossible row is refused by
name. What takes all files to see (doubled rows, missing examples) `analysis.scores.consistency` refuses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from analysis.paper.numbers import category_of
from configs.artifacts import fingerprint, sha256_file
from configs.errors import ArtifactError, unprintable
from configs.layout import StudyFolder
from configs.scores import LISTS, NULLABLE, REPEATED, ROUNDING_NATS, SCHEMA, STRINGS, VERSION
from configs.untrusted.checks import NAME_RULE, is_name
from configs.untrusted.parquet import metadata_of, read_parquet, read_schema

TYPES = {field.name: pa.string() if field.name in STRINGS else field.type for field in SCHEMA}
"""Strings may come as they are or dictionary-encoded."""
NAMES = ("study", "scale", "mixture", "recipe", "benchmark", "category")
"""Columns that become parts of paths, file names, tables and pages; a recipe may be empty."""
RESCORE = "delete the file and score the checkpoint again"


@dataclass(frozen=True)
class ScoreFile:
    path: Path
    sha256: str
    table: pa.Table
    """DESIGN's columns; strings are dictionary-encoded."""

    def codes(self, name: str) -> tuple[np.ndarray, list[str]]:
        """A string column as int codes [rows] and the strings they stand for."""
        column = self.table.column(name).combine_chunks()
        return column.indices.to_numpy(zero_copy_only=False), column.dictionary.to_pylist()


def score_files(study: StudyFolder) -> tuple[Path, ...]:
    """Finished score files; names that begin with a dot are still being written."""
    return tuple(sorted(p for p in study.scores.rglob("*.parquet") if not p.name.startswith(".")))


def files_fingerprint(files: Iterable[Path]) -> str:
    """What everything derived from these files carries; their order does not matter."""
    return fingerprint(sorted(sha256_file(path) for path in files))


def read_scores(study: StudyFolder) -> Iterator[ScoreFile]:
    """Every score file of a study, checked, one at a time.

    Raises ArtifactError naming the file (and row) that is missing, damaged or malformed.
    """
    files = score_files(study)
    if not files:
        raise ArtifactError(
            "no score file", where=study.scores, hint="train and score first: python study.py run <study>"
        )
    for path in files:
        yield read_score_file(path, study.name)


def read_score_file(path: Path, study: str | None = None) -> ScoreFile:
    """study: to which it must belong, if any. Raises as `read_scores`."""
    table = _read_file(path)
    columns = [_encode(table.column(name)) if name in STRINGS else table.column(name) for name in TYPES]
    # One chunk: row numbers count from the file's start.
    checked = pa.table(columns, names=list(TYPES)).combine_chunks()
    _check_rows(checked, path, study)
    return ScoreFile(path, sha256_file(path), checked)


def read_metadata(files: tuple[Path, ...]) -> dict[str, list[str]]:
    """Key of the files' metadata (schema version, plan hash, dtype, ...) -> its distinct values."""
    found: dict[str, set[str]] = {}
    for path in files:
        for key, value in metadata_of(read_schema(path, ArtifactError, hint=RESCORE)).items():
            found.setdefault(key, set()).add(value)
    return {key: sorted(values) for key, values in sorted(found.items())}


def _read_file(path: Path) -> pa.Table:
    problem = next(_schema_problems(read_schema(path, ArtifactError, hint=RESCORE)), None)
    if problem is not None:
        raise ArtifactError(problem, where=path, valid=", ".join(TYPES), hint=RESCORE)
    return read_parquet(path, ArtifactError, hint=RESCORE)


def _schema_problems(schema: pa.Schema) -> Iterator[str]:
    version = metadata_of(schema).get("schema_version", VERSION)
    if version != VERSION:
        yield f"schema version {version}, this code reads {VERSION}"
    for name, expected in TYPES.items():
        if name not in schema.names:
            yield f"column {name} is missing"
            continue
        found = schema.field(name).type
        same = found.equals(expected)
        if pa.types.is_dictionary(found):
            same = found.value_type.equals(expected)
        elif pa.types.is_list(found) and name in LISTS:
            same = found.value_type.equals(LISTS[name])
        if not same:
            yield f"column {name} has type {found}, expected {expected}"
    unknown = sorted(set(schema.names) - set(TYPES))
    if unknown:
        yield f"unknown columns {', '.join(unknown)}"


def _encode(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return (
        column.cast(REPEATED) if pa.types.is_dictionary(column.type) else column.cast(pa.string()).dictionary_encode()
    )


def _check_rows(table: pa.Table, path: Path, study: str | None) -> None:
    """Refuse the first impossible row of one file."""

    def refuse(problem: str, bad: np.ndarray | None = None) -> None:
        row = "" if bad is None else f", row {int(np.flatnonzero(bad)[0])}"
        raise ArtifactError(problem, where=f"{path}{row}", hint=RESCORE)

    if len(table) == 0:
        refuse("holds no row")
    for name in TYPES:
        column = table.column(name)
        if name not in NULLABLE and column.null_count:
            refuse(f"{name} is null", column.is_null().to_numpy())

    expected = {"stage": {"PT", "SFT"}} | ({"study": {study}} if study else {})
    for name, valid in expected.items():
        found = set(table.column(name).unique().to_pylist())
        if wrong := sorted(found - valid):
            refuse(f"{name} is {wrong[0]!r}, expected {' or '.join(sorted(valid))}")
    for name in NAMES:
        for text in table.column(name).unique().to_pylist():
            if not is_name(text) and (text or name != "recipe"):
                raise ArtifactError(f"{name} is {text!r:.120}", where=path, valid=NAME_RULE, hint=RESCORE)
    for name in ("variant", "checkpoint"):
        if bad := [text for text in table.column(name).unique().to_pylist() if unprintable(text)]:
            refuse(f"{name} holds a control character: {bad[0]!r:.120}")
    described = ["benchmark", "category", "stage", "recipe"]
    pairs = table.group_by(described, use_threads=False).aggregate([]).to_pandas()
    for pair in pairs.itertuples(index=False):
        category = category_of().get(pair.benchmark)  # None: a benchmark of the user's own, which names its own
        if category is not None and pair.category != category.lower():
            refuse(f"category of {pair.benchmark} is {pair.category!r}, expected {category.lower()!r}")
        if (pair.stage == "SFT") != bool(pair.recipe):
            refuse(f"stage {pair.stage} with recipe {pair.recipe!r}: a recipe belongs to SFT and only to SFT")

    lengths = {name: pc.list_value_length(table.column(name)).to_numpy() for name in LISTS}
    candidates = lengths["logprob_sum"]
    if (candidates < 2).any():
        refuse("fewer than two candidates", candidates < 2)
    for name, length in lengths.items():
        wrong_length = ~np.isnan(length) & (length != candidates)
        if wrong_length.any():
            refuse(f"{name} and logprob_sum differ in length", wrong_length)
        values = pc.list_flatten(table.column(name))
        flat = values.to_numpy()
        # NaN fails both comparisons, a null inside a list reads as NaN.
        good = (flat <= ROUNDING_NATS) & (flat > -np.inf) if pa.types.is_floating(values.type) else flat >= 1
        if not good.all():
            owner = pc.list_parent_indices(table.column(name)).to_numpy()
            meaning = "a finite log-probability" if pa.types.is_floating(values.type) else "at least 1"
            refuse(f"{name} holds {flat[~good][0]}, expected {meaning}", np.isin(np.arange(len(table)), owner[~good]))
    gold = table.column("gold").to_numpy()
    if ((gold < 0) | (gold >= candidates)).any():
        refuse("gold is not the index of a candidate", (gold < 0) | (gold >= candidates))
