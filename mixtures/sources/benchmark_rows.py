"""The rows of a benchmark, from a local file or the Hub: its evaluation split or a fixed sample of it, and train rows.

Local: <root>/benchmarks/<slug>/<split>.parquet with the Hub's columns, or the file that the spec names for the split
(Parquet or JSON lines). Rows keep their number in that file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.artifacts import sha256_unchanged
from configs.errors import DataError
from configs.schema import BenchmarkConfig
from configs.untrusted.checks import lines_of, parse_json

if TYPE_CHECKING:
    import pyarrow as pa


LARGEST = 512 << 20
"""Bytes of a benchmark's rows in memory; of the paper's 20 evaluation splits HellaSwag's takes most, 10 million."""


@dataclass(frozen=True)
class Rows:
    """`table[i]` is the row numbered `numbers[i]` of `split`, which `where` names for messages."""

    where: str
    split: str
    numbers: list[int]
    table: list[Mapping[str, Any]]


def evaluation_split(root: Path | None, spec: BenchmarkConfig) -> str:
    return spec.split_in(local=root is not None and not spec.files)


def on_hub(spec: BenchmarkConfig, root: Path | None) -> bool:
    """Are its rows read from the Hub? root: as of `read_rows`."""
    return root is None and not spec.files and spec.hub is not None


def resolve_revision(
    spec: BenchmarkConfig, root: Path | None, data: Path, log: Callable[[str], None]
) -> BenchmarkConfig:
    """The same benchmark at the commit that its revision stood for when `data` first saw it (`hub.resolve_revision`).

    root: as of `read_rows`. Raises DataError where the commit must be asked for and cannot.
    """
    if spec.hub is None or not on_hub(spec, root):
        return spec
    from mixtures.sources import hub

    # A study asks for it anew with every checkpoint, and no benchmark is to change in between.
    return spec.model_copy(update={"revision": hub.resolve_revision(spec.hub, spec.revision, data, log, look=False)})


def source_identity(root: Path | None, spec: BenchmarkConfig, *, train: bool = False) -> str:
    """What the rows (or the train rows) of a benchmark depend on: the file's sha256, or the place on the Hub."""
    split = spec.train_split if train else evaluation_split(root, spec)
    path = _file(root, spec, split)
    return sha256_unchanged(path) if path else f"{spec.hub}/{spec.config}/{split}@{spec.revision}"


def read_rows(root: Path | None, spec: BenchmarkConfig, sample: int | None = None, seed: int = 0) -> Rows:
    """All rows of the evaluation split, or the fixed sample of `sample` of them, in row order.

    root: folder that holds benchmarks/; None reads the Hub, of a benchmark whose revision is resolved.
    Raises DataError for a missing file, a missing column or an empty split.
    """
    split = evaluation_split(root, spec)
    return _read(root, spec, split, lambda total: sample_rows(total, sample, f"{seed}/{spec.slug}"))


def read_train_rows(root: Path | None, spec: BenchmarkConfig, count: int, seed: int = 0) -> Rows:
    """`count` rows of the train split (fewer where it is smaller), in the order of their hash with `seed`.

    Raises DataError as `read_rows`.
    """
    return _read(root, spec, spec.train_split, lambda total: _ranked(total, f"{seed}/{spec.slug}/shots")[:count])


def _read(root: Path | None, spec: BenchmarkConfig, split: str, choose: Callable[[int], list[int]]) -> Rows:
    path = _file(root, spec, split)
    table, where = (_table(path), str(path)) if path else (_hub_table(spec, split), f"{spec.hub} ({split})")
    missing = [column for column in spec.columns if column not in table.column_names]
    if missing:
        raise DataError(
            f"column {missing[0]!r} is missing",
            where=where,
            valid=f"columns {', '.join(spec.columns)}; found {', '.join(table.column_names)}",
        )
    if table.num_rows == 0:
        raise DataError("the benchmark has no rows", where=where, hint="fetch or generate the file again")
    numbers = choose(table.num_rows)
    rows = table.select(spec.columns).to_pylist()
    return Rows(where, split, numbers, [rows[number] for number in numbers])


def sample_rows(total: int, sample: int | None, key: str) -> list[int]:
    """The `sample` rows whose sha256 with `key` is smallest, ascending.

    The same on every machine and for every version of a random generator; a larger sample contains a smaller one.
    """
    if sample is None or sample >= total:
        return list(range(total))
    return sorted(_ranked(total, key)[:sample])


def _ranked(total: int, key: str) -> list[int]:
    return sorted(range(total), key=lambda row: hashlib.sha256(f"{key}/{row}".encode()).digest())


def _file(root: Path | None, spec: BenchmarkConfig, split: str) -> Path | None:
    """The file of a split; None for the Hub."""
    hint = "name the folder that holds benchmarks/ with --data-root"
    if spec.files:
        path, valid = Path(spec.files.get(split, "")), f"a file of each split in `files` of benchmark {spec.slug}"
    elif root is not None:
        path = root / "benchmarks" / spec.slug / f"{split}.parquet"
        valid = "<data root>/benchmarks/<slug>/<split>.parquet"
    elif spec.hub is not None:
        return None
    else:
        raise DataError("no place to read from", where=f"benchmark {spec.slug}", valid="hub, or files", hint=hint)
    if not path.is_file():
        rows = "train" if split == spec.train_split else "evaluation"
        if rows == "train":
            hint = f"shots are drawn from them: add the file, or score {spec.display} without shots"
        where = path if path.name else f"benchmark {spec.slug}, split {split}"
        raise DataError(f"the {rows} rows of {spec.display} are missing", where=where, valid=valid, hint=hint)
    return path


def _table(path: Path) -> pa.Table:
    import pyarrow as pa

    from configs.untrusted.parquet import read_parquet

    if path.suffix != ".jsonl":
        return read_parquet(path, DataError, hint="fetch it again", limit=LARGEST)
    try:
        return pa.Table.from_pylist(_json_lines(path))
    # Values of different types in a column; half of a surrogate pair; a number of more than 64 bits.
    except (pa.ArrowException, UnicodeEncodeError, OverflowError, TypeError) as error:
        raise DataError(f"not a readable JSON-lines file ({error})", where=path, hint="fetch it again") from None


def _json_lines(path: Path) -> list[dict[str, Any]]:
    rows = []
    if (size := path.stat().st_size) > LARGEST:
        raise DataError(f"{size:,} bytes", where=path, valid=f"at most {LARGEST:,}")
    with path.open("rb") as stream:
        for number, line in enumerate(lines_of(stream, path, DataError), start=1):
            try:
                row = parse_json(line)
            except ValueError as error:
                raise DataError(f"line {number} is not JSON ({error})", where=path) from None
            if not isinstance(row, dict):
                raise DataError(f"line {number} is no object", where=path, valid='{"column": value, ...}')
            rows.append(row)
    return rows


def _hub_table(spec: BenchmarkConfig, split: str) -> pa.Table:
    import datasets

    from mixtures.sources.hub import COMMIT, explained

    assert spec.hub is not None and COMMIT.fullmatch(spec.revision), "its revision is resolved first"
    with explained(spec.hub, spec.revision):
        return datasets.load_dataset(spec.hub, spec.config, split=split, revision=spec.revision).with_format("arrow")[:]
