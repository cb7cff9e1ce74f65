"""Score files: one Parquet file for each checkpoint, one row for each example.

The columns are those of `configs.scores`. What identifies the measurement but is the same for all rows (plan,
precision, versions) stands in the file's metadata. Equal inputs give equal bytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from configs.artifacts import atomic_file, remove_abandoned
from configs.errors import ArtifactError
from configs.runtime.versions import versions
from configs.scores import SCHEMA, VERSION
from configs.untrusted.parquet import metadata_of as schema_metadata
from configs.untrusted.parquet import read_parquet
from ray_eval.checkpoints.checkpoint import Checkpoint
from ray_eval.plans.plan import Plan

IDENTITY = ("checkpoint", "config_sha256", "code_sha256")
"""Keys of the metadata that say which model was scored; a model that is now another one is always scored again."""
PACKAGES = ("numpy", "pyarrow", "torch", "transformers")
"""Packages a score may depend on; the versions of those there are, are recorded."""
DESCRIPTIVE = ("versions", "model", "benchmark_commits")
"""Keys of the metadata that may differ between equal scores."""


def score_metadata(plan: Plan, checkpoint: Checkpoint, precision: str) -> dict[str, str]:
    """What makes a score file up to date: equal metadata (but for `DESCRIPTIVE`), equal scores."""
    return {
        "schema_version": VERSION,
        "checkpoint": checkpoint.checkpoint,
        "plan_hash": plan.hash,
        "dtype": precision,
        "bos_policy": str(plan.info["bos_policy"]),
        "tokenizer_sha256": str(plan.info["tokenizer_sha256"]),
        **checkpoint.facts,
        **({"benchmark_commits": json.dumps(plan.info["commits"], sort_keys=True)} if plan.info["commits"] else {}),
        "versions": json.dumps(versions(PACKAGES)),
    }


def score_table(plan: Plan, checkpoint: Checkpoint, sums: NDArray[np.float64], precision: str) -> pa.Table:
    """sums: log-probability of every sequence of the plan, float64 [num_sequences], all of them finite."""
    assert np.isfinite(sums).all(), "a score that is not finite"
    count, described = plan.num_examples, plan.info["benchmarks"]
    constant = {**checkpoint.columns, "checkpoint": checkpoint.checkpoint}
    unscored = plan.unconditional < 0  # no bare answer prefix: null in the file, not a number
    unconditional = np.where(unscored, np.nan, sums[plan.unconditional])
    columns: dict[str, Any] = {
        **{
            name: _repeated([value], np.zeros(count, np.int32)) if isinstance(value, str) else np.full(count, value)
            for name, value in constant.items()
        },
        **{
            name: _repeated([d[key] for d in described], plan.example_benchmark)
            for name, key in (("benchmark", "slug"), ("category", "category"), ("variant", "variant"))
        },
        "example_id": [
            f"{described[benchmark]['split']}/{row}"
            for benchmark, row in zip(plan.example_benchmark.tolist(), plan.example_row.tolist(), strict=True)
        ],
        "gold": plan.gold,
        "logprob_sum": _lists(plan, sums[plan.sequence], pa.float64()),
        "num_tokens": _lists(plan, plan.num_tokens, pa.int32()),
        "num_chars": _lists(plan, plan.num_chars, pa.int32()),
        "num_bytes": _lists(plan, plan.num_bytes, pa.int32()),
        "logprob_unconditional": _lists(
            plan, unconditional, pa.float64(), absent=unscored[plan.candidate_offsets[:-1]]
        ),
        "truncated": plan.truncated,
    }
    arrays = [_array(columns[field.name], field.type) for field in SCHEMA]
    metadata = score_metadata(plan, checkpoint, precision)
    return pa.Table.from_arrays(arrays, schema=SCHEMA.with_metadata(metadata))


# pyarrow's own conversions import pandas, which takes longer than scoring a small checkpoint; hence from buffers.


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    """Strings, numbers or truth values as a column; an Arrow array as it is."""
    if isinstance(values, pa.Array):
        return values
    if kind == pa.string():
        encoded = [text.encode() for text in values]
        ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
        return pa.StringArray.from_buffers(len(encoded), pa.py_buffer(ends), pa.py_buffer(b"".join(encoded)))
    if kind == pa.bool_():
        data = np.packbits(values, bitorder="little")
    else:
        data = np.ascontiguousarray(
            values, {pa.int32(): np.int32, pa.int64(): np.int64, pa.float64(): np.float64}[kind]
        )
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(data)])


def _repeated(values: list[str], indices: NDArray[np.int32]) -> pa.DictionaryArray:
    """Strings by index; equal strings share one entry."""
    distinct = sorted(set(values))
    codes = np.array([distinct.index(value) for value in values], np.int32)
    return pa.DictionaryArray.from_arrays(_array(codes[indices], pa.int32()), _array(distinct, pa.string()))


def _lists(
    plan: Plan, values: NDArray[Any], kind: pa.DataType, absent: NDArray[np.bool_] | None = None
) -> pa.ListArray:
    """One list for each example; null where `absent`."""
    mask = None if absent is None else _array(absent, pa.bool_())
    return pa.ListArray.from_arrays(_array(plan.candidate_offsets, pa.int32()), _array(values, kind), mask=mask)


def write_scores(table: pa.Table, path: Path) -> None:
    """Write a score file atomically, with page checksums; what a killed worker left of it is removed."""
    remove_abandoned(path)
    with atomic_file(path) as stream:
        pq.write_table(table, stream, compression="zstd", write_page_checksum=True)


def read_scores(path: Path) -> pa.Table:
    """`open_scores`. Raises ArtifactError for a file that holds NaN or infinity, too."""
    table = open_scores(path)
    if wrong := count_not_finite(table):
        problem = f"{wrong} log-probabilities are NaN or infinite"
        hint = "delete it and score the checkpoint again"
        raise ArtifactError(problem, where=path, valid="finite numbers", hint=hint)
    return table


def padded(table: pa.Table, name: str, fill: float) -> NDArray[np.float64]:
    """A list column as [rows, longest list]; short rows are filled."""
    # From dlpack: pyarrow's own conversion imports pandas, which takes longer than scoring a small checkpoint.
    length = np.from_dlpack(pc.list_value_length(table[name]).combine_chunks())
    out = np.full((len(length), int(length.max())), fill)
    out[np.arange(out.shape[1]) < length[:, None]] = np.from_dlpack(pc.list_flatten(table[name]).combine_chunks())
    return out


def count_not_finite(table: pa.Table) -> int:
    """Log-probabilities that are NaN, infinite or null."""
    wrong = 0
    for name in ("logprob_sum", "logprob_unconditional"):
        values = pc.list_flatten(table[name])
        wrong += len(values) - (pc.sum(pc.is_finite(values)).as_py() or 0)
    return wrong


def open_scores(path: Path) -> pa.Table:
    """Raises ArtifactError for a file that is truncated, altered, of another version or something else."""
    hint = "delete it and score again"
    table = read_parquet(path, ArtifactError, hint=hint)
    if table.schema.names != SCHEMA.names or table.schema.types != SCHEMA.types:
        wrong = [n for n in SCHEMA.names if n not in table.schema.names] or [
            field.name
            for field in table.schema
            if field.name not in SCHEMA.names or field.type != SCHEMA.field(field.name).type
        ]
        raise ArtifactError(f"not a score file (column {', '.join(wrong)})", where=path, valid=str(SCHEMA), hint=hint)
    version = metadata_of(table).get("schema_version")
    if version != VERSION:
        raise ArtifactError(f"schema version {version!r}", where=path, valid=VERSION, hint=hint)
    return table


def metadata_of(table: pa.Table) -> dict[str, str]:
    return schema_metadata(table.schema)
