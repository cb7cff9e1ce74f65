"""Score files as all rooms agree on them: <runs>/<study>/scores/**/*.parquet.

One file for each checkpoint, one row for each example. `ray_eval` writes them, `analysis` reads them, and anybody may
publish them, so a change of a column or of its meaning needs a new `VERSION`.
"""

from __future__ import annotations

import pyarrow as pa

VERSION = "1"
"""Stands in the file's metadata as `schema_version`."""
REPEATED = pa.dictionary(pa.int32(), pa.string())
"""Type of a string that is the same in many rows."""
SCHEMA = pa.schema(
    [
        *((name, REPEATED) for name in ("study", "scale", "mixture", "stage", "recipe")),
        *((name, REPEATED) for name in ("benchmark", "category", "variant")),
        ("example_id", pa.string()),
        ("checkpoint", REPEATED),
        ("seed", pa.int32()),
        ("step", pa.int64()),
        ("tokens", pa.int64()),
        ("gold", pa.int32()),
        ("logprob_sum", pa.list_(pa.float64())),
        ("num_tokens", pa.list_(pa.int32())),
        ("num_chars", pa.list_(pa.int32())),
        ("num_bytes", pa.list_(pa.int32())),
        ("logprob_unconditional", pa.list_(pa.float64())),
        ("truncated", pa.bool_()),
    ]
)
STRINGS = tuple(field.name for field in SCHEMA if field.type in (REPEATED, pa.string()))
LISTS = {field.name: field.type.value_type for field in SCHEMA if pa.types.is_list(field.type)}
"""Columns with one number for each candidate, and the type of the numbers."""
NULLABLE = ("logprob_unconditional", "num_tokens", "truncated")
"""What imported scores (ray_eval.import_results) may lack; everything that needs it is missing then, not guessed."""
ROUNDING_NATS = 1e-3
"""A log-probability may exceed 0 by the rounding of bf16, not by more."""
