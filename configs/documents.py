"""What a study reads: the folder of its documents, its sources, its SFT sets, and the tokens it needs of each source.

In: a study, the folder that the command line names, the folder of data. Out: one answer for whoever asks.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from configs.arguments import CommandParser
from configs.errors import ConfigError, DataError
from configs.grid import training_runs
from configs.layout import data_root, microworld_dir
from configs.load import load_mixture, load_sources, load_study, parse_overrides
from configs.schema import StudyConfig

PARTS = ("corpora", "benchmarks")


@dataclass(frozen=True)
class ExternalInputs:
    """Fingerprints of what a study reads from outside. `mixtures.sources.identity` makes it; empty: not known."""

    rows: Mapping[str, str] = field(default_factory=dict)
    """Benchmark -> its evaluation rows."""
    shots: Mapping[str, str] = field(default_factory=dict)
    """Benchmark -> the rows that shots are drawn from."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Place -> the files there that tokenizing reads."""
    tokenizer_file: str | None = None
    """sha256 of the tokenizer.json that the study takes, if it takes one."""


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


def study_parser(prog: str, description: str, examples: str) -> CommandParser:
    """The command line of what reads a study's documents: the study, where things lie, how many processes."""
    parser = CommandParser(prog=prog, description=description, examples=examples)
    parser.add_common("study", required=True)
    parser.add_common("documents", "data", "workers", "ray")
    parser.add_overrides()
    return parser


def read_study_arguments(
    arguments: argparse.Namespace, parts: Sequence[str] = PARTS
) -> tuple[StudyConfig, Path | None, Path]:
    """(study, folder of its documents, data folder) of a command line of `study_parser`. Raises as `documents_of`."""
    data = data_root(arguments.data)
    study = load_study(arguments.study, parse_overrides(arguments.overrides))
    return study, documents_of(study, arguments.documents, data, parts), data


def sources_of(study: StudyConfig) -> list[str]:
    """Sources with a positive weight in some mixture of the study, in the order of configs/sources.yaml."""
    used = {s for mixture in study.mixtures for s, weight in load_mixture(mixture).weights.items() if weight > 0}
    return [source for source in load_sources().sources if source in used]


def sft_sets_of(study: StudyConfig) -> dict[str, int]:
    """SFT set -> longest context in tokens that any recipe of the study trains it at."""
    contexts: dict[str, int] = {}
    for config in training_runs(study):
        if config.stage == "sft":
            name = config.data.sft_set
            contexts[name] = max(contexts.get(name, 0), config.model.context_tokens)
    return contexts


def tokens_needed(study: StudyConfig) -> dict[str, int]:
    """Source -> training tokens of it that no run of the study exceeds."""
    needed = dict.fromkeys(sources_of(study), 0)
    for config in training_runs(study):
        weights = load_mixture(config.data.mixture).weights if config.stage == "pt" else {}
        for source, weight in weights.items():
            if weight:
                # The blend is exact to one sample, and a window shows one token of the next.
                tokens = math.ceil(config.pretraining_tokens * weight) + 2 * config.model.context_tokens
                needed[source] = max(needed[source], tokens)
    return needed
