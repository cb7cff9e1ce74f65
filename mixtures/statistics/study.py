"""The sources of a study, measured: the pass over their units, then tables, figures and the manifest.

In: a study, its documents and its tokenizer. Out: <data>/statistics/<tokenizer>/ with sources.parquet, units.parquet,
histograms.parquet, cross_entropy.parquet, figures/, the sums behind them in sums/, and manifest.json, written last.
A unit whose documents, tokenizer and features are those of the sums already there is not read again, so a run that
was killed goes on where it was, and a new file costs no more than itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from configs.artifacts import (
    MANIFEST,
    atomic_file,
    describe_file,
    fingerprint,
    is_made_from,
    read_object,
    verify_files,
    write_json,
    write_text,
)
from configs.documents import sources_of
from configs.drawing.scene import style
from configs.errors import DataError
from configs.layout import statistics_dir, tokenizer_dir
from configs.load import load_sources
from configs.progress import Progress
from configs.runtime.cluster import cluster
from configs.schema import StudyConfig
from mixtures.parallel import map_units
from mixtures.sources.source import Source, Unit
from mixtures.statistics import unigram
from mixtures.statistics.figures import figures
from mixtures.statistics.measure import FEATURES, Job, Measured, measure_unit
from mixtures.statistics.tables import Statistics, UnitFile
from mixtures.tokens.tokenizer import Tokenizer

STATISTICS_VERSION = 1


def measure_study(
    study: StudyConfig,
    documents_root: Path | None,
    data: Path,
    log: Callable[[str], None] | None = None,
    *,
    share: float = 1.0,
    max_units: int | None = None,
    workers: int | None = None,
    use_ray: bool = False,
) -> Path:
    """Measure the study's sources; return the folder, which is complete once its manifest is there.

    documents_root: folder with corpora/; None on the Hub, where a study does not read it.
    say: takes plain lines; without it, a terminal shows a bar and a log gets lines.
    share: of the documents, chosen by the hash of their text.
    max_units: of a source, chosen by the hash of their name; None: all.

    Raises DataError for missing or malformed documents, ArtifactError where the tokenizer has not been made or the
    statistics that are there were altered.
    """
    folder = statistics_dir(data, study.tokenizer.name)
    with Progress(None, print_line=log) as progress:
        tokenizer = Tokenizer.load(tokenizer_dir(data, study.tokenizer.name))
        jobs = [
            Job(
                unit,
                folder / "sums" / source.name / f"{number:05d}.npz",
                tokenizer.folder,
                tokenizer.sha256,
                share,
                added_tokens=tuple(sorted(tokenizer.recognised)),
            )
            for source in _sources(study, documents_root, data, progress.line)
            for number, unit in _chosen(source.units(), max_units)
        ]
        measured = _measure(jobs, workers, use_ray, progress)
        if not any(result.utf8_bytes for result in measured):
            hint = "every row was dropped, or a larger --share is needed"
            raise DataError("not one document to measure", where=f"study {study.name}", hint=hint)
        made_from = {
            "version": STATISTICS_VERSION,
            "columns": [column for feature in FEATURES for column in feature.columns],
            "units": [
                {"source": job.unit.source.name, "unit": job.unit.name, **result.made_from}
                for job, result in zip(jobs, measured, strict=True)
            ],
        }
        what = f"{len(jobs)} units of {len({job.unit.source.name for job in jobs})} sources: {folder}"
        if is_made_from(folder, made_from):
            verify_files(folder, read_object(folder / MANIFEST)["files"], deep=True)
            progress.line(f"unchanged, {what}")
        else:
            _write(folder, study, jobs, measured, made_from)
            progress.line(what)
    return folder


def _sources(study: StudyConfig, root: Path | None, data: Path, log: Callable[[str], None]) -> list[Source]:
    place = None if study.data.kind == "hub" else root
    return [Source(name, load_sources().sources[name], place).resolve_revision(data, log) for name in sources_of(study)]


def _chosen(units: Sequence[Unit], at_most: int | None) -> list[tuple[int, Unit]]:
    """Units with their place in the source; those with the smallest hashes, so that more of them include fewer."""
    places = sorted(range(len(units)), key=lambda place: fingerprint(units[place].name))[:at_most]
    return [(place, units[place]) for place in sorted(places)]


def _measure(jobs: Sequence[Job], workers: int | None, use_ray: bool, progress: Progress) -> list[Measured]:
    """One result for each job, in their order."""
    results: dict[int, Measured] = {}
    fresh = done = 0
    with cluster(workers) if use_ray else contextlib.nullcontext():
        for index, result in map_units(measure_unit, jobs, workers=workers, use_ray=use_ray):
            results[index] = result
            if not result.kept:
                fresh, done = fresh + 1, done + result.utf8_bytes
                # Units not yet read are taken to be as large as those that were.
                progress.expect(done + done * (len(jobs) - len(results)) // fresh)
                progress.advance(result.utf8_bytes, f"measuring {jobs[index].unit.source.name}")
    return [results[index] for index in range(len(jobs))]


def _write(
    folder: Path, study: StudyConfig, jobs: Sequence[Job], measured: Sequence[Measured], made_from: dict[str, Any]
) -> None:
    specs = load_sources().sources
    units: dict[str, list[UnitFile]] = {}
    for job in jobs:
        units.setdefault(job.unit.source.name, []).append(UnitFile(job.unit.name, job.path))
    statistics = Statistics(units, {name: specs[name].kind for name in units}, FEATURES)
    titles = {name: specs[name].display for name in units}
    (folder / MANIFEST).unlink(missing_ok=True)
    files = []
    for name, table in statistics.tables().items():
        files.append(f"{name}.parquet")
        with atomic_file(folder / files[-1]) as stream:
            pq.write_table(table, stream, compression="zstd")
    for name, scene in figures(statistics, titles, synthetic=study.synthetic).items():
        files.append(f"figures/{name}.svg")
        write_text(folder / files[-1], scene.svg(style()) + "\n")
    manifest = {
        "version": STATISTICS_VERSION,
        "kind": "statistics",
        "synthetic": study.synthetic,
        "inputs": fingerprint(made_from),
        "made_from": made_from,
        "dropped": {
            f"{job.unit.source.name}/{job.unit.name}": result.dropped
            for job, result in zip(jobs, measured, strict=True)
            if result.dropped
        },
        "columns": {name: column._asdict() for name, column in statistics.columns.items()},
        "unigram": {
            "background_share": unigram.BACKGROUND_SHARE,
            "uniform_share": unigram.UNIFORM_SHARE,
            "high_entropy_threshold_nats": statistics.pool.threshold_nats,
        },
        "files": {name: describe_file(folder / name) for name in files},
    }
    write_json(folder / MANIFEST, manifest)
