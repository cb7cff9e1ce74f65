"""What a study reads and has not made, as the identities of its units hold it.

In: a study and the folder of its documents. Out: fingerprints. Documents count by name, size and time, because
tokenising itself looks at every byte; benchmarks and a tokenizer.json, which are small, by content, so that one that
was only touched makes no score stale. Which files those are only `mixtures` knows, which is asked inside functions.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from configs.artifacts import fingerprint, sha256_file
from configs.errors import DataError
from configs.load import load_benchmarks, load_sources
from configs.schema import StudyConfig
from configs.walk import walk

MISSING = "missing"
"""Of what cannot be read: whoever needs it says so, and a status can be asked for without it."""
SHOWN = 12
"""Letters of a fingerprint, where a person reads them."""


def benchmark_rows(study: StudyConfig, documents: Path | None) -> dict[str, dict[str, str]]:
    """{"rows": benchmark -> its evaluation rows, "shots": benchmark -> the rows that shots are drawn from}.

    Left out where nothing is known: rows that the study generates (`mixtures` and the study's data decide those), and
    local ones as long as no folder is named.
    """
    from mixtures.benchmark_rows import source_identity

    generated = study.synthetic or (study.data.kind == "local" and documents is None)
    specs = [spec for spec in load_benchmarks(study.benchmarks) if spec.files or not generated]

    def identities(train: bool) -> dict[str, str]:
        found = {}
        for spec in specs:
            try:
                found[spec.slug] = fingerprint(source_identity(documents, spec, train=train))[:SHOWN]
            except (DataError, OSError):
                found[spec.slug] = MISSING
        return found

    return {"rows": identities(train=False), "shots": identities(train=True) if study.scoring.shots else {}}


def document_files(
    study: StudyConfig, documents: Path | None, sources: Iterable[str], sets: Iterable[str]
) -> dict[str, str]:
    """Place -> fingerprint of the files there that tokenising reads; sources, sets: names of those the study uses."""
    own = {f"sources.{name}": load_sources().sources[name].files for name in sources}
    own |= {f"sft.{name}": load_sources().sft[name].files for name in sets}
    return {
        "corpora": _corpora(documents) if documents and not study.synthetic else "",
        **{name: _own_files(patterns, documents) for name, patterns in own.items() if patterns is not None},
    }


def source_bytes(source: str, documents: Path | None) -> int:
    """Of the local files of a source. Raises DataError where there are none."""
    from mixtures.sources import Source

    return sum(unit.size_bytes or 0 for unit in Source(source, load_sources().sources[source], documents).units())


def tokenizer_file(study: StudyConfig) -> str | None:
    """sha256 of the tokenizer.json that the study takes, if it takes one."""
    if study.tokenizer.file is None:
        return None
    path = Path(study.tokenizer.file)
    return sha256_file(path) if path.is_file() else MISSING


def _corpora(documents: Path) -> str:
    return _listing(walk(documents / "corpora", hidden=True).files)


def _own_files(patterns: str | tuple[str, ...], documents: Path | None) -> str:
    from mixtures.files import find_globs

    try:
        return _listing(find_globs(patterns, documents).files)
    except (DataError, OSError):
        return MISSING


def _listing(files: dict[str, Path]) -> str:
    return fingerprint([(name, (at := files[name].stat()).st_size, at.st_mtime_ns) for name in sorted(files)])[:SHOWN]
