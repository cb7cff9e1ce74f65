"""Every unit of every source and SFT set searched for the items of every benchmark.

In: units, benchmarks, the rule. Out: `<folder>/` with hits.parquet, items.parquet, summary.csv (`report`) and, last,
manifest.json. Each unit leaves its own part as soon as it is searched, so an interrupted search goes on where it
stopped; where neither documents, benchmarks nor rule changed, nothing is done again. The result does not depend on the
number of workers.
"""

from __future__ import annotations

import functools
import time
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from configs.artifacts import (
    MANIFEST,
    atomic_file,
    describe_file,
    fingerprint,
    is_made_from,
    read_object,
    sha256_file,
    verify_files,
    write_json,
)
from configs.errors import ArtifactError
from configs.progress import Progress
from configs.schema import BenchmarkConfig, SftSpec
from mixtures.contamination import report
from mixtures.contamination.index import INDEX_VERSION, Index
from mixtures.contamination.items import Catalogue, read_items
from mixtures.contamination.words import Batch
from mixtures.parallel import batches_of, map_units
from mixtures.sources.benchmark_rows import source_identity
from mixtures.sources.source import Unit

VERSION = 1
BATCH_CHARACTERS = 1 << 20


class Rule(NamedTuple):
    """What counts as standing in a document."""

    ngram: int = 13
    """Words of an n-gram."""
    min_words: int = 8
    """A text of fewer than `ngram` words counts whole from this many on; shorter ones are not assessable."""


GPT3_RULE = Rule()


@dataclass(frozen=True)
class Extract:
    """A unit, or some of its rows."""

    unit: Unit
    rows: tuple[Path, ...] | None = None
    """The .rows.npy files (`mixtures.tokens.shards`) that name the rows to read; None: all."""

    @property
    def source(self) -> str:
        return self.unit.source.name

    @property
    def kind(self) -> str:
        spec = self.unit.source.spec
        return report.SFT_KIND if isinstance(spec, SftSpec) else spec.kind

    def inputs(self) -> dict[str, Any]:
        """Equal values mean equal documents."""
        rows = None if self.rows is None else [sha256_file(path) for path in self.rows]
        return {"source": self.source, "kind": self.kind, "unit": self.unit.name, "rows": rows} | self.unit.inputs()

    def documents(self) -> Iterator[tuple[int, str]]:
        """Rows and texts; of a conversation all messages, since a question and its answer are two of them."""
        if isinstance(self.unit.source.spec, SftSpec):
            for row, messages in enumerate(self.unit.conversations()):
                yield row, "\n".join(message["content"] for message in messages)
        elif self.rows is None:
            yield from self.unit.documents()
        else:
            wanted = {row for path in self.rows for row in np.load(path)["row"].tolist()}
            yield from ((row, text) for row, text in self.unit.documents() if row in wanted)


@dataclass(frozen=True)
class Job:
    """What one worker needs: documents, the index on disk, and the file for the result."""

    extract: Extract
    index: Path
    part: Path


def search(
    extracts: Sequence[Extract],
    benchmarks: Sequence[BenchmarkConfig],
    root: Path | None,
    folder: Path,
    rule: Rule = GPT3_RULE,
    *,
    workers: int | None = None,
    use_ray: bool = False,
    log: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Bring `folder` up to date; returns its manifest.

    root: folder that holds benchmarks/; None reads the Hub. workers, use_ray: see `map_units`.
    Raises DataError for missing or malformed documents and benchmark rows.
    """
    began = time.perf_counter()
    wanted = looked_for(benchmarks, root, rule)
    read = [extract.inputs() for extract in extracts]
    made_from = wanted | {"documents": read}
    if is_made_from(folder, made_from):
        log(f"contamination of {len(benchmarks)} benchmarks: unchanged")
        return open_manifest(folder)

    items = [item for spec in benchmarks for item in read_items(spec, root)]
    catalogue, index = Catalogue.build(items, *rule)
    log(f"{len(items):,} items of {len(benchmarks)} benchmarks, {index.ngrams.sum():,} n-grams to look for")
    parts = folder / "parts"
    index_file = parts / f"index-{fingerprint(wanted)[:16]}.npz"
    jobs = [
        Job(extract, index_file, parts / f"{extract.source}-{fingerprint([wanted, inputs])[:16]}.parquet")
        for extract, inputs in zip(extracts, read, strict=True)
    ]
    missing = [job for job in jobs if not job.part.exists()]
    if missing:
        # Workers read the index from disk: it is too large to be sent with every job.
        index.save(index_file)
        _search_all(missing, workers, use_ray, log)
    manifest = _write_results(folder, catalogue, index, jobs, made_from)
    megabytes = sum(counts["utf8_bytes"] for counts in manifest["read"].values()) / 1e6
    passed_s = time.perf_counter() - began
    log(f"{megabytes:,.1f} MB of text, {len(missing)} of {len(jobs)} files read now; {passed_s:.1f} s")
    return manifest


def _write_results(
    folder: Path, catalogue: Catalogue, index: Index, jobs: Sequence[Job], made_from: Mapping[str, Any]
) -> dict[str, Any]:
    """Write the tables and, last, the manifest, which is returned; then remove the parts of earlier searches."""
    found = [_read_part(job) for job in jobs]
    report.write(folder, catalogue, index, found)
    manifest: dict[str, Any] = {
        "version": VERSION,
        "kind": "contamination",
        "items": len(catalogue.items),
        "ngrams": int(index.ngrams.sum()),
        "read": _totals(found),
        "inputs": fingerprint(made_from),
        "made_from": made_from,
        "packages": {"numpy": np.__version__, "pyarrow": pa.__version__},
        "files": {name: describe_file(folder / name) for name in report.FILES},
    }
    write_json(folder / MANIFEST, manifest)
    for path in set((folder / "parts").iterdir()) - {job.part for job in jobs}:
        path.unlink(missing_ok=True)
    return manifest


def looked_for(benchmarks: Sequence[BenchmarkConfig], root: Path | None, rule: Rule) -> dict[str, Any]:
    """What an index is made from; equal values mean equal indices."""
    return {
        "version": [VERSION, INDEX_VERSION, unicodedata.unidata_version],
        "rule": rule._asdict(),
        "benchmarks": {spec.slug: source_identity(root, spec) for spec in benchmarks},
    }


def open_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished search. Raises ArtifactError where there is none or a file's size differs from it."""
    if not (folder / MANIFEST).is_file():
        raise ArtifactError("no finished search here", where=folder, hint="python -m mixtures.contamination --help")
    manifest: dict[str, Any] = read_object(folder / MANIFEST)
    verify_files(folder, manifest["files"])
    return manifest


def _search_all(jobs: Sequence[Job], workers: int | None, use_ray: bool, log: Callable[[str], None]) -> None:
    sizes = [job.extract.unit.size_bytes for job in jobs]
    total = None if None in sizes else sum(size or 0 for size in sizes)
    with Progress(total, print_line=None if log is print else log) as progress:
        for number, text_bytes in map_units(search_unit, jobs, workers=workers, use_ray=use_ray):
            done = text_bytes if total is None else sizes[number] or 0
            progress.advance(done, f"searched {jobs[number].extract.source}")


def search_unit(job: Job) -> int:
    """Write the part of one unit: the columns row and place of `report.UnitHits`, its totals in the metadata.

    Returns the bytes of text read.
    """
    index = load_index(job.index)
    rows, places = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    totals = dict.fromkeys(("documents", "words", "utf8_bytes"), 0)
    for numbers, texts in batches(job.extract.documents()):
        batch = Batch(texts)
        found = index.find(batch)
        rows.append(np.array(numbers, dtype=np.int64)[found.document])
        places.append(found.place)
        totals["documents"] += len(texts)
        totals["words"] += len(batch)
        totals["utf8_bytes"] += sum(len(text) if text.isascii() else len(text.encode()) for text in texts)
    table = pa.table({"row": np.concatenate(rows), "place": np.concatenate(places)})
    with atomic_file(job.part) as stream:
        pq.write_table(table.replace_schema_metadata({name: str(n) for name, n in totals.items()}), stream)
    return totals["utf8_bytes"]


@functools.lru_cache(1)
def load_index(path: Path) -> Index:
    """`Index.load`, once a worker."""
    return Index.load(path)


def batches(documents: Iterable[tuple[int, str]]) -> Iterator[tuple[list[int], list[str]]]:
    """Rows and texts of whole documents, together until they reach BATCH_CHARACTERS."""
    for batch in batches_of(documents, lambda document: len(document[1]), BATCH_CHARACTERS):
        yield [row for row, _ in batch], [text for _, text in batch]


def _read_part(job: Job) -> report.UnitHits:
    table = pq.read_table(job.part)
    totals = {name.decode(): int(value) for name, value in table.schema.metadata.items()}
    row, place = (table[name].to_numpy() for name in ("row", "place"))
    return report.UnitHits(job.extract.source, job.extract.kind, job.extract.unit.name, row, place, totals)


def _totals(units: Iterable[report.UnitHits]) -> dict[str, dict[str, int]]:
    """Source -> documents, words and bytes of text that were read."""
    read: dict[str, Counter[str]] = defaultdict(Counter)
    for unit in units:
        read[unit.source].update(unit.totals)
    return {source: dict(counts) for source, counts in read.items()}
