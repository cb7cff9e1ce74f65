"""What a study trains on, and what it is scored on, put before the search.

Read are all documents of its sources and all conversations of its SFT sets. Where the token shards leave documents out
(a sample of a large corpus, `data.decontaminate`), only those that the shards hold: then they must have been made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from configs.documents import sft_sets_of, sources_of
from configs.layout import contamination_dir, shards_dir
from configs.load import BENCHMARKS, load_benchmark, load_sources
from configs.schema import BenchmarkConfig, StudyConfig
from mixtures.contamination.search import GPT3_RULE, Extract, Rule, search
from mixtures.sources.benchmark_rows import resolve_revision
from mixtures.sources.source import Source
from mixtures.tokens.sampling import sample_of
from mixtures.tokens.shards import KINDS, VALIDATION, part_name, read_manifest


def search_study(
    study: StudyConfig,
    documents_root: Path | None,
    data: Path,
    rule: Rule = GPT3_RULE,
    *,
    workers: int | None = None,
    use_ray: bool = False,
    log: Callable[[str], None] = print,
) -> Path:
    """Bring <data>/contamination/<study> up to date and return it.

    documents_root: folder with corpora/ and benchmarks/; None on the Hub, where a study does not read it.
    """
    root = None if study.data.kind == "hub" else documents_root
    folder = contamination_dir(data, study.name)
    extracts = [extract for source in _sources(study, root) for extract in _extracts(study, source, data, log)]
    search(
        extracts, benchmarks_of(study, root, data, log), root, folder, rule, workers=workers, use_ray=use_ray, log=log
    )
    return folder


def benchmarks_of(
    study: StudyConfig, root: Path | None, data: Path, log: Callable[[str], None]
) -> list[BenchmarkConfig]:
    """The study's benchmarks at their commits; root: folder that holds benchmarks/, None: the Hub."""
    return [resolve_revision(load_benchmark(slug), root, data, log) for slug in study.benchmarks or BENCHMARKS]


def _sources(study: StudyConfig, root: Path | None) -> list[Source]:
    known: dict[str, Any] = load_sources().sources | load_sources().sft
    return [Source(name, known[name], root) for name in (*sources_of(study), *sft_sets_of(study))]


def _extracts(study: StudyConfig, source: Source, data: Path, log: Callable[[str], None]) -> Iterator[Extract]:
    source = source.resolve_revision(data, log)
    is_corpus = source.name in load_sources().sources
    if not is_corpus or (study.data.decontaminate is None and sample_of(study, source) is None):
        yield from (Extract(unit) for unit in source.units())
        return
    folder = shards_dir(data, study.tokenizer.name, source.name)
    numbers = {entry["name"]: number for number, entry in enumerate(read_manifest(folder)["units"])}
    for unit in source.units():
        if unit.name in numbers:
            name = f"{part_name(numbers[unit.name])}{KINDS[2]}"
            files = (folder / name, folder / VALIDATION / name)
            yield Extract(unit, tuple(path for path in files if path.is_file()))
