"""What a study reads: the folder of its documents, its sources, its SFT sets, and the tokens it needs of each source.

In: a study, the folder that the command line names, the folder of data. Out: one answer for whoever asks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from configs.errors import ConfigError, DataError
from configs.layout import microworld_dir
from configs.load import load_mixture, load_sources, pretrain_config, sft_config
from configs.schema import StudyConfig

PARTS = ("corpora", "benchmarks")


@dataclass(frozen=True)
class Reads:
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


def sources_of(study: StudyConfig) -> list[str]:
    """Sources with a positive weight in some mixture of the study, in the order of configs/sources.yaml."""
    used = {s for mixture in study.mixtures for s, weight in load_mixture(mixture).weights.items() if weight > 0}
    return [source for source in load_sources().sources if source in used]


def sft_sets_of(study: StudyConfig) -> dict[str, int]:
    """SFT set -> longest context in tokens that any recipe of the study trains it at."""
    contexts: dict[str, int] = {}
    for scale in study.scales:
        for recipe in study.recipes:
            config = sft_config(study, scale, recipe, seed=0)
            name = config.data.sft_set
            contexts[name] = max(contexts.get(name, 0), config.model.context_tokens)
    return contexts


def tokens_needed(study: StudyConfig, source: str) -> int:
    """Training tokens of `source` that no run of the study exceeds."""
    needed = 0
    for scale in study.scales:
        for mixture in study.mixtures:
            config = pretrain_config(study, scale, mixture, seed=0)
            weight = load_mixture(mixture).weights.get(source, 0.0)
            total = config.pretraining_steps * config.tokens_per_step
            # The blend is exact to one sample, and a window shows one token of the next.
            needed = max(needed, math.ceil(total * weight) + 2 * config.model.context_tokens)
    return needed
