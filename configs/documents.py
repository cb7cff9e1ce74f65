"""Which folder a study's documents lie in: one rule for whoever reads them.

In: a study, the folder that the command line names, the folder of data. Out: the folder, or None for the Hub.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from configs.errors import ConfigError, DataError
from configs.layout import microworld_dir
from configs.schema import StudyConfig

PARTS = ("corpora", "benchmarks")


def documents_of(study: StudyConfig, given: str | Path | None, data: Path, parts: Sequence[str] = PARTS) -> Path | None:
    """The folder with corpora/ and benchmarks/; None on the Hub; of a synthetic study where they are generated.

    parts: of a local folder, which must be there. Raises ConfigError for a folder that the study does not read, that is
    not named or not there, DataError for one without these parts.
    """
    if study.data.kind != "local":
        if given is not None:
            reads = "generates its documents" if study.synthetic else "reads its documents from the Hub"
            raise ConfigError(
                f"study {study.name} {reads}: it would not look at this folder",
                where=given,
                valid="a study on local documents, such as configs/studies/real_small.yaml",
                hint=f"name that study, or read the folder in this one: data.kind=local --documents {given}",
            )
        return microworld_dir(data) if study.synthetic else None
    if not (named := given or study.data.root):
        raise ConfigError(
            f"study {study.name} reads local documents, and none are named",
            valid="a folder with corpora/ and benchmarks/",
            hint="--documents DIR, data.root=DIR, or make study STUDY=... DATA=DIR",
        )
    root = Path(named)
    if not root.is_dir():
        raise ConfigError("data folder is missing", where=root, valid="a folder with corpora/ and benchmarks/")
    for part in parts:
        if not (root / part).is_dir():
            raise DataError("data folder is missing", where=root / part, valid="a folder with corpora/ and benchmarks/")
    return root.resolve()
