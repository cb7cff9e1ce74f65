"""What another harness scored, as a score file of ours.

In: samples that `lm_eval_format` or `lighteval_format` read, and what no harness records and the user must say: scale,
mixture, stage, step and tokens of the model (`Identity`). Out: one score file for each checkpoint, whole or not at all.

What the source lacks is null, never guessed: the log-probability after the bare answer prefix, the candidates' tokens
(lm-eval logs neither), and whether a context was truncated (no harness logs it). The weights were not seen:
`checkpoint` is `imported-` and the sha256 over the files that were read, and the file's metadata name them. A score
file lies where the scorer would write that checkpoint's, so that no checkpoint has both.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import Field

from configs.artifacts import sha256_file, sha256_files
from configs.errors import ConfigError, DataError
from configs.load import BENCHMARKS, load_benchmark, read_yaml, validate
from configs.schema import Model
from configs.scores import ROUNDING_NATS, SCHEMA, VERSION
from configs.untrusted.checks import YAML_BYTES
from ray_eval.checkpoints.identity import Identity

HALF_A_PAIR = re.compile("[\ud800-\udfff]")
"""Half of a character: JSON can spell it, UTF-8 cannot hold it."""


class Identities(Model):
    """A file of identities, for many models at once."""

    models: dict[str, Identity] = Field(min_length=1)
    """The model's name as the harness recorded it, or that of its output folder -> what it is."""


def read_identities(path: Path) -> dict[str, Identity]:
    """Read identities from YAML (`models: {name: {scale: ..., ...}}`) or CSV (columns `model` and of `Identity`).

    Raises ConfigError naming the file, the model and the key.
    """
    if path.suffix != ".csv":
        return validate(Identities, read_yaml(path), path).models
    if not path.is_file():
        raise ConfigError("no such file", where=path, valid="YAML or CSV")
    if (size := path.stat().st_size) > YAML_BYTES:
        raise ConfigError(f"{size:,} bytes", where=path, valid=f"at most {YAML_BYTES:,}")
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream, restkey="beyond the heading"))
    except (csv.Error, UnicodeDecodeError) as error:
        valid = "UTF-8, a heading, and a line for each model"
        raise ConfigError(f"not a CSV file ({error})", where=path, valid=valid) from None
    found: dict[str, Any] = {}
    for number, row in enumerate(rows, start=2):
        name = row.pop("model", None)
        if not name or name in found:
            raise ConfigError(f"model {name!r} comes twice or is empty", where=f"{path}, line {number}")
        found[name] = {key: value for key, value in row.items() if value}
    return validate(Identities, {"models": found}, path).models


@dataclass(frozen=True)
class HarnessSample:
    """One example as another harness scored it; candidates in that harness's order, which is ours.

    candidates: without the delimiter.   gold: index of the truly right one.
    logprob_sum, unconditional: in nats.
    """

    row: int
    candidates: tuple[str, ...]
    gold: int
    logprob_sum: tuple[float, ...]
    num_tokens: tuple[int, ...] | None = None
    unconditional: tuple[float, ...] | None = None

    def check(self, where: str) -> HarnessSample:
        """Raises DataError for what a score file must not hold."""
        problem = next(itertools.chain(self._number_problems(), self._text_problems()), None)
        if problem is not None:
            raise DataError(problem, where=where, valid="two or more texts, each with a log-probability of at most 0")
        return self

    def _number_problems(self) -> Iterator[str]:
        count = len(self.candidates)
        if count < 2:
            yield f"{count} candidates"
        for values in (self.logprob_sum, self.num_tokens, self.unconditional):
            if values is not None and len(values) != count:
                yield f"{len(values)} numbers for {count} candidates"
        for value in (*self.logprob_sum, *(self.unconditional or ())):
            if not (math.isfinite(value) and value <= ROUNDING_NATS):
                yield f"log-probability {value}"
        if not 0 <= self.gold < count:
            yield f"gold {self.gold} of {count} candidates"

    def _text_problems(self) -> Iterator[str]:
        if not all(isinstance(text, str) and text for text in self.candidates) or min(self.num_tokens or (1,)) < 1:
            yield "an empty candidate"
        elif HALF_A_PAIR.search("".join(self.candidates)):
            yield "a candidate with half of a surrogate pair"


@dataclass(frozen=True)
class SampleFile:
    """A file of samples: whose they are and of which task, before it is read."""

    path: Path
    model: str
    """As the harness recorded it."""
    folder: str
    """Name of the output folder, which may stand for the model."""
    task: str
    slug: str | None
    """Our benchmark; None where the file cannot be imported, for the reason `skip`."""
    skip: str
    read: Callable[[], HarnessSamples] = field(repr=False)


@dataclass(frozen=True)
class HarnessSamples:
    """What a file held.

    size: examples in the split, of which `samples` may be a part.
    facts: key of the file's metadata -> what the harness recorded (dtype, versions, ...).
    """

    split: str
    variant: str
    samples: list[HarnessSample]
    size: int
    dataset: str
    facts: dict[str, str]


def collect_samples(
    read: Iterable[tuple[str, HarnessSample]], counted: int, path: Path, key: str
) -> list[HarnessSample]:
    """The samples of a file: each row once, and as many as the harness's results count (less than 1: not said).

    read: (place in the file, sample).   key: the harness's name of a row number. Raises DataError.
    """
    samples: dict[int, HarnessSample] = {}
    places: dict[int, str] = {}
    for place, sample in read:
        if sample.row in samples:
            problem = f"{key} {sample.row} comes twice, first in {places[sample.row]}"
            hint = "runs were appended to one file: keep those of one"
            raise DataError(problem, where=f"{path}, {place}", hint=hint)
        samples[sample.row], places[sample.row] = sample, place
    if counted > 0 and len(samples) != counted:
        problem = f"{len(samples)} samples, its results count {counted} (cut short, or of another run)"
        raise DataError(problem, where=path, hint="copy the file again")
    return list(samples.values())


def checkpoint_of(files: Sequence[SampleFile]) -> str:
    """What stands in the column `checkpoint` for weights that were not seen."""
    return f"imported-{sha256_files([file.path for file in files])}"


def imported_table(study: str, identity: Identity, read: Sequence[tuple[SampleFile, HarnessSamples]]) -> pa.Table:
    """The score file of one model, from its files and what they held; a benchmark may come in several variants.

    Raises DataError where two files hold the same benchmark and variant.
    """
    by_cell: dict[tuple[int, str], tuple[SampleFile, HarnessSamples]] = {}
    for file, held in read:
        before, _ = by_cell.setdefault((BENCHMARKS.index(str(file.slug)), held.variant), (file, held))
        if before is not file:
            hint = "name the files to take, or move one of the two away"
            problem = f"a second file of {file.task} ({held.variant}), beside {before.path}"
            raise DataError(problem, where=file.path, hint=hint)
    checkpoint = checkpoint_of([file for file, _ in read])
    constant = identity.model_dump() | {"study": study, "checkpoint": checkpoint}
    parts = [_cell(constant, file, held) for _, (file, held) in sorted(by_cell.items())]
    table = pa.concat_tables(parts).unify_dictionaries().combine_chunks()
    return table.replace_schema_metadata(_metadata(checkpoint, read))


def _cell(constant: Mapping[str, Any], file: SampleFile, held: HarnessSamples) -> pa.Table:
    """Rows of one file, by row number; `constant`: columns that are the same in all rows of the checkpoint."""
    spec = load_benchmark(str(file.slug))
    cell = {**constant, "benchmark": spec.slug, "category": spec.category, "variant": held.variant, "truncated": None}
    rows = [
        {
            **cell,
            "example_id": f"{held.split}/{sample.row}",
            "gold": sample.gold,
            "logprob_sum": sample.logprob_sum,
            "num_tokens": sample.num_tokens,
            "num_chars": [len(text) for text in sample.candidates],
            "num_bytes": [len(text.encode()) for text in sample.candidates],
            "logprob_unconditional": sample.unconditional,
        }
        for sample in sorted(held.samples, key=lambda sample: sample.row)
    ]
    return pa.table([pa.array([row[f.name] for row in rows], f.type) for f in SCHEMA], schema=SCHEMA)


def _metadata(checkpoint: str, read: Sequence[tuple[SampleFile, HarnessSamples]]) -> dict[str, str]:
    """Metadata of the score file, as far as known; a fact on which the files differ lists its values."""
    facts: dict[str, set[str]] = {}
    files = {}
    for file, held in read:
        for key, value in (held.facts | {"model": file.model}).items():
            facts.setdefault(key, set()).add(value)
        files[file.path.name] = {"sha256": sha256_file(file.path), "dataset": held.dataset}
    return {
        "schema_version": VERSION,
        "checkpoint": checkpoint,
        **{key: ", ".join(sorted(values)) for key, values in sorted(facts.items())},
        "files": json.dumps(files, sort_keys=True),
    }
