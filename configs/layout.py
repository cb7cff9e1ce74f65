"""Where artefacts live. Every room asks here; nobody joins these paths by hand.

<data>/microworld/…                                  embedded synthetic corpus and benchmarks
<data>/revisions.json                                commits that branches on the Hub stood for at the first read
<data>/hub/*.json                                    files of each data set on the Hub at its commit
<data>/tokenizers/<tokenizer id>/tokenizer.json
<data>/tokens/<tokenizer id>/<source>/               Megatron shards, manifest.json, validation/
<data>/sft/<tokenizer id>/<set>/
<data>/statistics/<tokenizer id>/                    sources.parquet, units.parquet, ..., figures/, manifest.json
<data>/contamination/<study>/                        hits.parquet, items.parquet, summary.csv, manifest.json
<data>/index/<blend fingerprint>/                    order of training, a cache: may be deleted at any time
<runs>/<study>/<scale>/<mixture>/seed<k>/<stage>/    config.yaml metrics.jsonl provenance.json checkpoints/ export/
                                                     tensorboard/, hang/ after a hang and, last, DONE
<runs>/<study>/<scale>/<mixture>/seed<k>/.<stage>.lock   held by the process that works in the run folder
<runs>/<study>/scores/**/*.parquet
<runs>/<study>/metrics.parquet
<runs>/<study>/answers.parquet                       of every cell which examples were right and how sure
<runs>/<study>/report/index.html
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.errors import ArtifactError
from configs.untrusted.checks import check_name, is_name

CONFIG_ROOT = Path(__file__).resolve().parent
PROJECT_ROOT = CONFIG_ROOT.parent


def data_root(given: str | os.PathLike[str] | None = None) -> Path:
    """`given`, else MAGIC_DATA, else ./data; absolute."""
    return Path(given or os.environ.get("MAGIC_DATA") or "data").resolve()


def runs_root(given: str | os.PathLike[str] | None = None) -> Path:
    """`given`, else MAGIC_RUNS, else ./runs; absolute."""
    return Path(given or os.environ.get("MAGIC_RUNS") or "runs").resolve()


@dataclass(frozen=True)
class StudyFolder:
    """<runs>/<study>: all that one study leaves but its data."""

    runs: Path
    """Folder of studies."""
    name: str

    @classmethod
    def find(cls, given: str, runs: Path) -> StudyFolder:
        """The study of this name below `runs`, or the one in the folder of this path.

        Raises ArtifactError where there is none.
        """
        folder = runs / given if Path(given).name == given else Path(given).resolve()
        if not folder.is_dir():
            known = sorted(path.parent.name for path in runs.glob("*/study.yaml"))
            raise ArtifactError("no such study", where=folder, valid=", ".join(known) or "none has been started here")
        return cls(folder.parent, folder.name)

    @property
    def path(self) -> Path:
        return self.runs / self.name

    @property
    def config(self) -> Path:
        """The study as it was begun."""
        return self.path / "study.yaml"

    @property
    def declared(self) -> Path:
        """File that says which mixture must help which benchmark; only a synthetic study has it."""
        return self.path / "declared.json"

    @property
    def scores(self) -> Path:
        return self.path / "scores"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.parquet"

    @property
    def answers(self) -> Path:
        """File that says which examples every cell got right, and how sure it was."""
        return self.path / "answers.parquet"

    @property
    def report(self) -> Path:
        return self.path / "report"

    def run(self, scale: str, mixture: str, seed: int, stage: str) -> RunFolder:
        return RunFolder(self, scale, mixture, seed, stage)

    def relative(self, path: Path) -> str:
        """A path inside the study, as its records and its report name it."""
        return path.relative_to(self.path).as_posix()


def microworld_dir(data: Path) -> Path:
    return data / "microworld"


def revisions_file(data: Path) -> Path:
    return data / "revisions.json"


def hub_listing(data: Path, name: str) -> Path:
    return data / "hub" / f"{name}.json"


def tokenizer_dir(data: Path, tokenizer: str) -> Path:
    return data / "tokenizers" / tokenizer


def shards_dir(data: Path, tokenizer: str, source: str) -> Path:
    return data / "tokens" / tokenizer / source


def sft_dir(data: Path, tokenizer: str, sft_set: str) -> Path:
    return data / "sft" / tokenizer / sft_set


def tokenized_dirs(data: Path, tokenizer: str, sources: Iterable[str], sft_sets: Iterable[str]) -> dict[str, Path]:
    """Name for messages -> folder of all that tokenizing makes: the tokenizer, the shards of sources, SFT sets."""
    return {
        f"tokenizer {tokenizer!r}": tokenizer_dir(data, tokenizer),
        **{f"token shards of {source}": shards_dir(data, tokenizer, source) for source in sources},
        **{f"SFT set {sft_set!r}": sft_dir(data, tokenizer, sft_set) for sft_set in sft_sets},
    }


def index_dir(data: Path) -> Path:
    """Indices of blends, by fingerprint: a cache that is rebuilt wherever something is missing."""
    return data / "index"


def statistics_dir(data: Path, tokenizer: str) -> Path:
    return data / "statistics" / tokenizer


def contamination_dir(data: Path, study: str) -> Path:
    return data / "contamination" / study


def stage_name(recipe: str = "") -> str:
    """The stage as run folders name it: `sft-<recipe>`, or `pt` for a pretraining, which has no recipe."""
    return f"sft-{recipe}" if recipe else "pt"


@dataclass(frozen=True)
class RunFolder:
    """One training run on disk: `stage` is `pt` or `sft-<recipe>`. Raises ConfigError for what is no name."""

    study: StudyFolder
    scale: str
    mixture: str
    seed: int
    stage: str

    def __post_init__(self) -> None:
        check_name(self.study.name, "study")
        for what in ("scale", "mixture", "stage"):
            check_name(getattr(self, what), what)

    @classmethod
    def at(cls, path: Path) -> RunFolder | None:
        """The run that lies in a folder, by the folder's names; None where they are no run's."""
        *names, seed, stage = path.parts[-5:] if len(path.parts) > 5 else [""] * 5
        known = re.fullmatch(r"seed(\d+)/(?:pt|sft-.+)", f"{seed}/{stage}")
        if known is None or not all(map(is_name, (*names, stage))):
            return None
        study, scale, mixture = names
        return cls(StudyFolder(path.parents[4], study), scale, mixture, int(known[1]), stage)

    @classmethod
    def of_columns(cls, study: StudyFolder, columns: Mapping[str, Any]) -> RunFolder:
        """The run that wrote rows with these `columns` (see the property); other keys are ignored."""
        return cls(study, columns["scale"], columns["mixture"], columns["seed"], stage_name(columns["recipe"]))

    @property
    def recipe(self) -> str:
        """Name of the SFT set and settings; empty for a pretraining."""
        return self.stage.removeprefix("sft-") if self.stage != "pt" else ""

    @property
    def columns(self) -> dict[str, str | int]:
        """Columns of a score file that say which run a checkpoint is of."""
        return {
            "study": self.study.name,
            "scale": self.scale,
            "mixture": self.mixture,
            "stage": self.stage_column,
            "recipe": self.recipe,
            "seed": self.seed,
        }

    @property
    def stage_column(self) -> str:
        """`PT` or `SFT`: the column `stage` of scores."""
        return "SFT" if self.recipe else "PT"

    @property
    def path(self) -> Path:
        return self.study.path / self.scale / self.mixture / f"seed{self.seed}" / self.stage

    @property
    def name(self) -> str:
        return f"{self.scale}/{self.mixture}/seed{self.seed}/{self.stage}"

    @property
    def done(self) -> Path:
        """Written last: the run is complete, with the fingerprint of the inputs it was made from."""
        return self.path / "DONE"

    @property
    def provenance(self) -> Path:
        return self.path / "provenance.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def lock(self) -> Path:
        """Lock file. It lies beside the folder, because `--resume never` removes the folder."""
        return self.path.with_name(f".{self.stage}.lock")

    def export(self, step: int) -> Path:
        return self.path / "export" / f"step-{step:07d}"

    def score_file(self, export: Path) -> Path:
        """Scores of one of the run's exports."""
        return self.study.scores / self.name / f"{export.name}.parquet"
