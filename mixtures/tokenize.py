"""Everything a study trains on, made ready: tokenizer, token shards of every source used, SFT sets.

In: a study and its documents (a folder with corpora/, or the Hub). Out: <data>/tokenizers, <data>/tokens, <data>/sft
(`configs.layout`). A step is skipped where its manifest says that it was made from what is there now: the sha256 of
every input file (on the Hub: the revision), the tokenizer, and the settings. So a rerun costs the time to hash the
documents, and changed documents are never mistaken for the old ones because their path is the same. A run that was
killed goes on with the files it had not finished.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.artifacts import is_made_from
from configs.documents import read_study_arguments, sft_sets_of, sources_of, study_parser
from configs.errors import ConfigError, ResourceError, user_errors
from configs.layout import contamination_dir, sft_dir, shards_dir, tokenizer_dir
from configs.load import load_sources
from configs.schema import StudyConfig
from mixtures.tokens.sampling import sample_of

if TYPE_CHECKING:
    from mixtures.contamination.clean import ContaminationFilter
    from mixtures.sources.source import Source, Unit
    from mixtures.tokens.assembly import Assembly
    from mixtures.tokens.shards import Shards
    from mixtures.tokens.tokenizer import Tokenizer

Log = Callable[[str], None]

BYTES_PER_WORKER = 64e6
"""Input that makes another process worth its start, where nobody says how many workers."""

SHOWN_REMARKS = 5
"""Remarks on one source that are printed."""

EXAMPLES = """examples:
  python -m mixtures.tokenize --study mini
  python -m mixtures.tokenize --study configs/studies/real_small.yaml --documents ../shared/data --data /scratch/data
  python -m mixtures.tokenize --study paper --workers 16                  (streams from the Hub what the study needs)
  python -m mixtures.tokenize --study paper data.kind=local data.sample=true --documents /corpora --ray
"""


def tokenize_study(
    study: StudyConfig,
    documents: Path | None,
    data: Path,
    progress: Log | None = None,
    workers: int | None = None,
    use_ray: bool = False,
) -> None:
    """Make what is missing or outdated.

    documents: folder with corpora/; None on the Hub, where a study does not read it.
    progress: takes plain lines; without it, a terminal shows a bar and a log gets lines.
    workers: processes, or tasks on Ray; None: one for each CPU, but fewer where there is little to do.
    use_ray: on the connected cluster, else the one RAY_ADDRESS names, else one of this machine.

    Raises DataError for missing or malformed documents, ArtifactError for damaged artefacts (which stay untouched),
    ResourceError for a full disk or where another process is at work on the same source.
    """
    from configs.progress import Progress
    from configs.runtime.cluster import cluster
    from mixtures.sources.source import Source
    from mixtures.tokens.assembly import Assembly, assemble
    from mixtures.tokens.meter import metered

    root = None if study.data.kind == "hub" else documents
    sources = [Source(name, load_sources().sources[name], root) for name in sources_of(study)]
    sft_sets = [(_sft_source(name, root), context) for name, context in sft_sets_of(study).items()]
    with _disk_full(data), Progress(None, print_line=progress) as show:
        show.line(f"reading {len(sources)} sources and {len(sft_sets)} SFT sets")
        sources = [source.resolve_revision(data, show.line) for source in sources]
        sft_sets = [(source.resolve_revision(data, show.line), context) for source, context in sft_sets]
        # What is missing ends the run before anything is written.
        for line in _remarks([*sources, *(source for source, _ in sft_sets)]):
            show.line(line)
        tokenizer = _tokenizer(study, sources, data, show.line)
        document_filter = _contamination_filter(study, root, data, show.line)
        todo = []
        for source in sources:
            folder = shards_dir(data, study.tokenizer.name, source.name)
            assembly = Assembly(source, tokenizer, folder, sample_of(study, source), document_filter)
            shards = assembly.existing()
            if shards is None:
                todo.append(assembly)
            else:
                show.line(f"{source.name}: unchanged, {summary(shards)}")
        if todo:
            with cluster(workers) if use_ray else contextlib.nullcontext(), metered(todo, show):
                assemble(
                    todo,
                    workers=workers if use_ray or workers is not None else _worthwhile(todo),
                    use_ray=use_ray,
                    begin=lambda assembly: show.line(f"{assembly.source.name}: tokenizing {_extent(assembly)}"),
                    done=lambda assembly, shards: show.line(f"{assembly.source.name}: {summary(shards)}"),
                )
        for source, context_tokens in sft_sets:
            _sft(study, source, tokenizer, context_tokens, data, show.line)


def _remarks(sources: Sequence[Source]) -> Iterator[str]:
    """Links that add nothing, and files that two sources read. Raises DataError where a source has no files."""
    from mixtures.sources.local_files import LocalFile

    readers: dict[str, str] = {}
    for source in sources:
        remarks = source.remarks()
        yield from (f"{source.name}: {remark}" for remark in remarks[:SHOWN_REMARKS])
        if len(remarks) > SHOWN_REMARKS:
            yield f"{source.name}: and {len(remarks) - SHOWN_REMARKS:,} more links to what counts once"
        paths = [os.path.realpath(unit.file.path) for unit in source.units() if isinstance(unit.file, LocalFile)]
        for other, number in Counter(readers[path] for path in paths if path in readers).items():
            yield f"{source.name}: {number:,} of its files are files of {other}, too; their text counts in both"
        readers |= dict.fromkeys(paths, source.name)


def summary(shards: Shards) -> str:
    """One line on the shards of a source."""
    manifest = shards.manifest
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in manifest["dropped"].items())
    held_out = shards.validation.num_documents if shards.validation else 0
    text = (
        f"{manifest['documents']:,} documents, {manifest['tokens']:,} tokens, {manifest['utf8_bytes'] / 1e6:.1f} MB"
        f" (and {held_out:,} documents held out; dropped: {dropped or 'none'})"
    )
    sample = manifest["sample"]
    if sample is not None and not sample["reached"]:
        text += f"; the source ends before the {sample['tokens']:,} tokens that are needed"
    return text


# ---------------------------------------------------------------------------------------------- steps


def _tokenizer(study: StudyConfig, sources: Sequence[Source], data: Path, log: Log) -> Tokenizer:
    from mixtures.tokens.new_tokenizer import make_tokenizer, sample_units, tokenizer_inputs
    from mixtures.tokens.tokenizer import Tokenizer

    name = study.tokenizer.name
    folder = tokenizer_dir(data, name)
    sampled = [] if study.tokenizer.file else sources
    inputs = tokenizer_inputs(study.tokenizer, {source.name: _inputs(sample_units(source)) for source in sampled})
    if is_made_from(folder, inputs):
        log(f"tokenizer {name}: unchanged")
        return Tokenizer.load(folder)
    log(f"tokenizer {name}: making it")
    return make_tokenizer(study.tokenizer, sources, inputs, folder)


def _contamination_filter(study: StudyConfig, root: Path | None, data: Path, log: Log) -> ContaminationFilter | None:
    """What `data.decontaminate` leaves out: documents with items of the benchmarks that the study is scored on."""
    if study.data.decontaminate is None:
        return None
    from mixtures.contamination.clean import contamination_filter
    from mixtures.contamination.study import benchmarks_of

    benchmarks = benchmarks_of(study, root, data, log)
    return contamination_filter(benchmarks, root, contamination_dir(data, study.name), study.data.decontaminate)


def _sft(study: StudyConfig, source: Source, tokenizer: Tokenizer, context_tokens: int, data: Path, log: Log) -> None:
    from mixtures.tokens.sft import SFT_VERSION, SftDataset, prepare_sft

    folder = sft_dir(data, study.tokenizer.name, source.name)
    rows = _inputs(source.units())
    inputs = {"version": SFT_VERSION, "rows": rows, **tokenizer.identity, "context_tokens": context_tokens}
    if is_made_from(folder, inputs):
        log(f"SFT set {source.name}: unchanged, {len(SftDataset.open(folder)):,} examples")
        return
    log(f"SFT set {source.name}: tokenizing")
    examples = prepare_sft(source, tokenizer, folder, context_tokens=context_tokens, inputs=inputs)
    log(
        f"SFT set {source.name}: {len(examples):,} examples, {examples.truncated:,} cut to {context_tokens} tokens, "
        f"{examples.dropped:,} dropped"
    )


def _inputs(units: Sequence[Unit]) -> dict[str, Any]:
    """What each unit reads, hashed side by side."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip([unit.name for unit in units], pool.map(lambda unit: unit.inputs(), units), strict=True))


def _sft_source(name: str, root: Path | None) -> Source:
    from mixtures.sources.source import Source

    known = load_sources().sft
    if name not in known:
        raise ConfigError(f"data.sft_set: unknown SFT set {name!r}", valid=", ".join(known))
    return Source(name, known[name], root)


def _worthwhile(assemblies: Sequence[Assembly]) -> int:
    """Processes that pay for their start."""
    sizes = [unit.size_bytes for assembly in assemblies for unit in assembly.units]
    cpus = os.cpu_count() or 1
    return cpus if None in sizes else min(cpus, 1 + int(sum(size or 0 for size in sizes) / BYTES_PER_WORKER))


def _extent(assembly: Assembly) -> str:
    files = f"{len(assembly.units):,} file{'s' * (len(assembly.units) != 1)}"
    if assembly.sample is None:
        return files
    return (
        f"about {assembly.sample.tokens:,} tokens, {assembly.sample.fraction:.2%} of the documents of some of {files}"
    )


@contextlib.contextmanager
def _disk_full(data: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise ResourceError(
            "no space left on device", where=error.filename or data, hint="free disk space, or name another --data"
        ) from error


# ---------------------------------------------------------------------------------------------- command line


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    text = "Make the tokenizer of a study and tokenize every source and SFT set it uses."
    arguments = study_parser("python -m mixtures.tokenize", text, EXAMPLES).parse(argv)
    study, documents, data = read_study_arguments(arguments, parts=("corpora",))
    tokenize_study(study, documents, data, workers=arguments.workers, use_ray=arguments.ray)


if __name__ == "__main__":
    main()
