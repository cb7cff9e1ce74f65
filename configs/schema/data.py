"""What is trained on and what is scored: sources, mixtures, benchmarks."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, field_validator, model_validator

from configs.schema.base import Fraction, Model, Name, Positive

SOURCE_KINDS = ("web", "code", "curated")
WEIGHT_TOLERANCE = 1e-6


class Corpus(Model):
    """Where rows come from: a data set on the Hugging Face Hub, and its stand-in on a local disk."""

    hub: str | None = None
    """Data set id on the Hub; null where there is only local data."""
    config: str | None = None
    """Configuration (subset) on the Hub."""
    data_dir: str | None = None
    """Folder inside the Hub data set."""
    split: str = "train"
    revision: str = "main"
    """Commit, tag or branch on the Hub. What a tag or branch stood for is recorded at the first read and kept."""
    folder: str | None = None
    """Folder under <local data>/corpora; null: the entry's own name."""
    files: str | tuple[str, ...] | None = None
    """Glob or globs of local files that are read instead of Hub and folder, wherever the study's data lie; `~` and `**`
    work, relative ones start in the local data folder. Links are followed, and each real file counts once."""
    licence: str = ""
    """Licence, as the publisher states it."""
    access: str = ""
    """What must be accepted or installed before the first read."""

    @model_validator(mode="after")
    def _somewhere(self) -> Corpus:
        if self.files is not None and self.folder is not None:
            raise ValueError("files takes the place of folder: give one of them")
        if self.files is None and self.folder is None and self.hub is None:
            raise ValueError("no place to read from: give hub, folder or files")
        return self


class SourceSpec(Corpus):
    kind: Literal["web", "code", "curated"]
    """Group of the mixture table the source belongs to."""
    display: str
    """Name in tables and figures."""
    text_column: str = "text"
    """Column with the document on the Hub and in `files`; a local folder always has `text`."""
    contents: Literal["software_heritage"] | None = None
    """Where the documents are if the rows hold only their ids: `text_column` then names the column `blob_id`, with
    `src_encoding` beside it, or a column of lists of {blob_id, src_encoding}."""
    contents_endpoint: str | None = None
    """URL of another S3 server with the same objects; null: AWS."""
    published_tokens: Positive | None = None
    """Size as its publisher states it, in the publisher's own tokens; for plans only, null where not stated."""


class SftSpec(Corpus):
    messages_column: str = "messages"
    """Column with [{role, content}] on the Hub and in `files`; a local folder always has `messages`."""
    published_examples: Positive | None = None
    """Size as its publisher states it; for plans only, null where not stated."""


class SourcesConfig(Model):
    """configs/sources.yaml: every pretraining source and SFT set."""

    sources: dict[Name, SourceSpec] = Field(default_factory=dict)
    sft: dict[Name, SftSpec] = Field(default_factory=dict)


class MixtureConfig(Model):
    """configs/mixtures/<name>.yaml: shares of the training tokens, by source."""

    name: Name
    description: str = ""
    weights: dict[Name, Fraction]
    """Share of the training tokens; sums to 1."""

    @field_validator("weights")
    @classmethod
    def _sums_to_one(cls, weights: dict[str, float]) -> dict[str, float]:
        total = math.fsum(weights.values())
        if abs(total - 1.0) > WEIGHT_TOLERANCE:
            raise ValueError(f"weights sum to {total:.6g}, they must sum to 1")
        return weights


class PromptSet(Model):
    """One way to ask a row: Jinja templates over its columns (docs/benchmarks.md).

    Lists of texts (`candidates`, `options`, `labels`) are a YAML list, or one string: the Jinja expression of a list,
    such as `choices.text`.
    """

    context: str | tuple[str, ...]
    """What all candidates follow; a list has one context for each candidate."""
    candidates: str | tuple[str, ...] | None = None
    """What is scored, without the delimiter."""
    options: str | tuple[str, ...] | None = None
    """Instead of candidates: texts that the context shows as `lettered`, lines "A. text"; the letters are scored."""
    labels: str | tuple[str | int | bool, ...] | None = None
    """Valid values of the label column, in candidate order; null: those of the benchmark."""
    answer_prefix: str | None = "Answer:"
    """Bare prefix for unconditional log-probabilities (PMI); null where there is none."""
    fixed_candidates: bool | None = None
    """As the benchmark's key, where it differs from it; letters always are."""

    @model_validator(mode="after")
    def _one_kind(self) -> PromptSet:
        if (self.candidates is None) == (self.options is None):
            raise ValueError("give candidates (texts that are scored) or options (texts that letters stand for)")
        return self


class BenchmarkConfig(Model):
    """configs/benchmarks/<slug>.yaml, or a user's own file: where the rows are, their labels, how they are asked."""

    slug: Name
    display: str
    """Name in tables; that of the paper's Table 4."""
    category: Name
    """One of the paper's four (commonsense, science, nli, semantic), or a name of the user's."""
    hub: str | None = None
    """Data set id on the Hub."""
    config: str | None = None
    revision: str = "main"
    """As of a corpus: what a tag or branch stood for is recorded at the first read and kept."""
    files: dict[str, str] = Field(default_factory=dict)
    """Split -> Parquet or JSON-lines file that is read instead of Hub and local data; `~` works, relative ones start
    in the folder of this YAML file."""
    split: str
    """Evaluation split on the Hub."""
    local_split: str | None = None
    """Split (file name) under <local data>/benchmarks/<slug>/ where it differs from the Hub's."""
    train_split: str = "train"
    """Split that shots are drawn from."""
    examples: Positive | None = None
    """Examples in the evaluation split (the paper's Table 4)."""
    choices: int | None = None
    """Number of candidates; null where it varies from row to row."""
    fixed_candidates: bool = False
    """The candidates are the same words in every row (yes/no, True/False, letters): always giving the commonest of them
    is then a strategy, and chance is at least its share. Elsewhere a position in the list is not something to guess."""
    columns: tuple[str, ...]
    """Columns that must be there; templates may use these."""
    label: str
    """Column with the right answer (a text column for SciQ)."""
    labels: tuple[str | int | bool, ...] | None = None
    """Valid label values, in candidate order; null where each prompt set says."""
    prompts: dict[Name, PromptSet] = Field(min_length=1)
    """Prompt sets by name; the first is the default."""
    lm_eval_task: str = ""
    """Task of lm-evaluation-harness that the prompt set `lm_eval` follows."""
    departure: str = ""
    """Known difference from that task, with its number."""

    def split_in(self, *, local: bool) -> str:
        """The evaluation split of a local folder (its file is `<split>.parquet`) or of the Hub."""
        return self.local_split or self.split if local else self.split

    def fixed_in(self, prompt: str) -> bool:
        """`fixed_candidates` of a prompt set; an unknown one (of scores made elsewhere) counts as the default."""
        chosen = self.prompts.get(prompt)
        if chosen is None or (chosen.options is None and chosen.fixed_candidates is None):
            return self.fixed_candidates
        return chosen.options is not None or bool(chosen.fixed_candidates)

    @model_validator(mode="after")
    def _complete(self) -> BenchmarkConfig:
        if self.label not in self.columns:
            raise ValueError(f"label names {self.label!r}, which is not among the columns")
        without = [name for name, prompt in self.prompts.items() if prompt.labels is None and self.labels is None]
        if without:
            raise ValueError(f"no labels: give them to the benchmark, or to the prompt set {without[0]!r}")
        return self
