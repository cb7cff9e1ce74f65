"""What a study reads from outside, as fingerprints: the identities of its units hold them.

In: a study and the folder of its documents. Out: `ExternalInputs`. Documents count by name, size and time, because
tokenizing looks at every byte anyway. Benchmarks and a tokenizer.json are small and count by content, so that a file
that was only touched makes no score stale.
"""

from __future__ import annotations

from pathlib import Path

from configs.artifacts import fingerprint, sha256_unchanged
from configs.documents import ExternalInputs, sft_sets_of, sources_of
from configs.errors import DataError
from configs.load import load_benchmarks, load_sources
from configs.schema import StudyConfig
from configs.walk import walk

MISSING = "missing"
"""Stands for what cannot be read: whoever needs it says so, and a status can be asked for without it."""
SHOWN = 12
"""Letters of a fingerprint, where a person reads them."""


def read_identities(study: StudyConfig, documents: Path | None) -> ExternalInputs:
    """Everything a study reads from outside; documents: the folder of its documents, None on the Hub."""
    shots = _benchmark_rows(study, documents, train=True) if study.scoring.shots else {}
    return ExternalInputs(
        rows=_benchmark_rows(study, documents, train=False),
        shots=shots,
        files=_document_files(study, documents),
        tokenizer_file=_tokenizer_file(study),
    )


def source_bytes(source: str, documents: Path | None) -> int:
    """Bytes of the local files of a source. Raises DataError where there are none."""
    from mixtures.sources.source import Source

    return sum(unit.size_bytes or 0 for unit in Source(source, load_sources().sources[source], documents).units())


def _benchmark_rows(study: StudyConfig, documents: Path | None, *, train: bool) -> dict[str, str]:
    """Benchmark -> its evaluation rows or, with `train`, the rows that shots are drawn from.

    Left out where nothing is known: rows that the study generates (`mixtures` and the study's data decide those), and
    local ones as long as no folder is named.
    """
    from mixtures.sources.benchmark_rows import source_identity

    generated = study.synthetic or (study.data.kind == "local" and documents is None)
    found = {}
    for spec in (spec for spec in load_benchmarks(study.benchmarks) if spec.files or not generated):
        try:
            found[spec.slug] = fingerprint(source_identity(documents, spec, train=train))[:SHOWN]
        except (DataError, OSError):
            found[spec.slug] = MISSING
    return found


def _document_files(study: StudyConfig, documents: Path | None) -> dict[str, str]:
    """Place -> fingerprint of the files there that tokenizing reads."""
    known = load_sources()
    own = {f"sources.{name}": known.sources[name].files for name in sources_of(study)}
    own |= {f"sft.{name}": known.sft[name].files for name in sft_sets_of(study) if name in known.sft}
    return {
        "corpora": _corpora(documents) if documents and not study.synthetic else "",
        **{name: _own_files(patterns, documents) for name, patterns in own.items() if patterns is not None},
    }


def _tokenizer_file(study: StudyConfig) -> str | None:
    """sha256 of the tokenizer.json that the study takes, if it takes one."""
    if study.tokenizer.file is None:
        return None
    path = Path(study.tokenizer.file)
    return sha256_unchanged(path) if path.is_file() else MISSING


def _corpora(documents: Path) -> str:
    return _listing(walk(documents / "corpora", hidden=True).files)


def _own_files(patterns: str | tuple[str, ...], documents: Path | None) -> str:
    from mixtures.sources.local_files import find_globs

    try:
        return _listing(find_globs(patterns, documents).files)
    except (DataError, OSError):
        return MISSING


def _listing(files: dict[str, Path]) -> str:
    return fingerprint([(name, (at := files[name].stat()).st_size, at.st_mtime_ns) for name in sorted(files)])[:SHOWN]
