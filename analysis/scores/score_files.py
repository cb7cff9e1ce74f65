"""Score files to checked Arrow tables, one at a time.

In: <runs>/<study>/scores/**/*.parquet, one row per example and checkpoint, any folder depth. Out: `ScoreFile`s. Nothing
is believed before it is checked: a file that is truncated, lacks a column or holds an impossible row is refused by
name. Faults between files (doubled rows, missing examples) are refused by `analysis.scores.consistency`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

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
    """Fingerprint that everything derived from these files carries; their order does not matter."""
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


class _Problem(NamedTuple):
    """Why a file is refused."""

    text: str
    rows: np.ndarray | None = None
    """True for the rows that show it, bool [rows]; None: the file as a whole."""
    valid: str | None = None


def _check_rows(table: pa.Table, path: Path, study: str | None) -> None:
    """Refuse the first impossible row of one file."""
    # Later checks rely on earlier ones: numbers are compared only where none is missing.
    for check in (_missing_values, functools.partial(_wrong_names, study=study), _wrong_descriptions, _wrong_numbers):
        for text, rows, valid in check(table):
            row = "" if rows is None else f", row {int(np.flatnonzero(rows)[0])}"
            raise ArtifactError(text, where=f"{path}{row}", valid=valid, hint=RESCORE)


def _missing_values(table: pa.Table) -> Iterator[_Problem]:
    if len(table) == 0:
        yield _Problem("holds no row")
    for name in TYPES:
        column = table.column(name)
        if name not in NULLABLE and column.null_count:
            yield _Problem(f"{name} is null", column.is_null().to_numpy())


def _wrong_names(table: pa.Table, study: str | None) -> Iterator[_Problem]:
    """Texts that become parts of paths, tables and pages."""
    texts = {name: table.column(name).unique().to_pylist() for name in (*NAMES, "stage", "variant", "checkpoint")}
    for name, valid in (("stage", {"PT", "SFT"}), ("study", {study} if study else set(texts["study"]))):
        if wrong := sorted(set(texts[name]) - valid):
            yield _Problem(f"{name} is {wrong[0]!r}, expected {' or '.join(sorted(valid))}")
    for name in NAMES:
        for text in texts[name]:
            if not is_name(text) and (text or name != "recipe"):
                yield _Problem(f"{name} is {text!r:.120}", valid=NAME_RULE)
    for name in ("variant", "checkpoint"):
        if bad := [text for text in texts[name] if unprintable(text)]:
            yield _Problem(f"{name} holds a control character: {bad[0]!r:.120}")


def _wrong_descriptions(table: pa.Table) -> Iterator[_Problem]:
    """Columns that contradict each other."""
    columns = ["benchmark", "category", "stage", "recipe"]
    distinct = table.group_by(columns, use_threads=False).aggregate([]).to_pandas()
    for found in distinct.itertuples(index=False):
        category = category_of().get(found.benchmark)  # None: a benchmark of the user's own, which names its own
        if category is not None and found.category != category.lower():
            yield _Problem(f"category of {found.benchmark} is {found.category!r}, expected {category.lower()!r}")
        if (found.stage == "SFT") != bool(found.recipe):
            yield _Problem(f"stage {found.stage} with recipe {found.recipe!r}: a recipe belongs to SFT and only to SFT")


def _wrong_numbers(table: pa.Table) -> Iterator[_Problem]:
    """Lists of different lengths, impossible numbers in them, and a gold that is no candidate."""
    lengths = {name: pc.list_value_length(table.column(name)).to_numpy() for name in LISTS}
    candidates = lengths["logprob_sum"]
    if (candidates < 2).any():
        yield _Problem("fewer than two candidates", candidates < 2)
    for name, length in lengths.items():
        wrong_length = ~np.isnan(length) & (length != candidates)
        if wrong_length.any():
            yield _Problem(f"{name} and logprob_sum differ in length", wrong_length)
        values = pc.list_flatten(table.column(name)).to_numpy()
        is_logprob = pa.types.is_floating(LISTS[name])
        # NaN fails both comparisons, a null inside a list reads as NaN.
        good = (values <= ROUNDING_NATS) & (values > -np.inf) if is_logprob else values >= 1
        if not good.all():
            rows = np.zeros(len(table), bool)
            rows[pc.list_parent_indices(table.column(name)).to_numpy()[~good]] = True
            expected = "a finite log-probability" if is_logprob else "at least 1"
            yield _Problem(f"{name} holds {values[~good][0]}, expected {expected}", rows)
    gold = table.column("gold").to_numpy()
    wrong_gold = (gold < 0) | (gold >= candidates)
    if wrong_gold.any():
        yield _Problem("gold is not the index of a candidate", wrong_gold)
