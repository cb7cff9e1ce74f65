"""A whole study: a grid of runs, their data, scores and report; configs/studies/<name>.yaml."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from configs.schema.base import Count, Model, Name, Positive


class StudyData(Model):
    kind: Literal["microworld", "local", "hub"]
    """microworld: generated, synthetic; local: a folder with corpora/ and benchmarks/; hub: downloaded."""
    root: str | None = None
    """Folder of `local` data; the command line may name it instead."""
    megabytes_per_source: float = Field(2.5, gt=0)
    """Size of a generated source (microworld), in millions of bytes of text."""
    sample: bool = False
    """Tokenize only the local documents that the study can use: a sample by hash, as from the Hub."""
    decontaminate: float | None = Field(None, gt=0, le=1)
    """Leave a document out of the shards where it holds at least this share of the 13-grams of some text of a
    benchmark's evaluation item; null: keep them all."""


class StudyTokenizer(Model):
    name: Name = "default"
    vocab: Positive = 1024
    """Entries, special tokens included: of the BPE that is trained, or what a `file` with fewer is padded to."""
    sample_megabytes: float = Field(2.0, gt=0)
    """Text of each source that the BPE is trained on, in millions of bytes."""
    file: str | None = None
    """A tokenizer.json to take instead of training one. Added tokens that are not special are found in text."""
    end_of_text: str | None = None
    """The token of `file` that ends a document; null: found by its usual names."""


class StudyScale(Model):
    config: str
    """Pretraining config: a path relative to configs/."""
    sft: dict[Name, str]
    """SFT recipe -> `<config path>` or `<config path>#<preset>`; relative to configs/."""
    gpus: Count = 1
    """GPUs that one training works on; 0: it needs none."""


class StudyScoring(Model):
    sample: Positive | None = None
    """Examples of each benchmark, drawn with a fixed seed; null: all."""
    unconditional: bool = True
    """Also score the candidates after the bare answer prefix."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    seed: int = 0
    """Seed of the sample and of the shots."""
    prompt: str | None = None
    """Prompt set, e.g. lettered; null: the first in each benchmark's file, which is lm_eval for the paper's 20."""
    shots: Count = 0
    """Solved examples in front of each, drawn from the train split; the same for all examples of a benchmark."""
    chat: bool = False
    """Ask fine-tuned checkpoints in the chat format of their training: context as user, candidate as assistant."""


class StudyConfig(Model):
    """configs/studies/<name>.yaml: a grid of runs, their scores and the report."""

    name: Name
    description: str = ""
    data: StudyData
    tokenizer: StudyTokenizer = StudyTokenizer()
    scales: dict[Name, StudyScale] = Field(min_length=1)
    mixtures: tuple[Name, ...] = Field(min_length=1)
    """Names of files in configs/mixtures."""
    seeds: tuple[Count, ...] = Field((0,), min_length=1)
    """Seeds of every mixture."""
    extra_seeds: dict[str, tuple[Count, ...]] = Field(default_factory=dict)
    """Further seeds of single mixtures, so that seed noise is measured."""
    checkpoint_tokens: dict[str, tuple[Positive, ...]] = Field(default_factory=dict)
    """Scale -> further pretraining checkpoints (in tokens) to keep, export and score."""
    recipes: tuple[Name, ...]
    """SFT recipes to run; each scale must define them."""
    benchmarks: tuple[str, ...] = ()
    """Slugs, and paths of YAML files with benchmarks of one's own; empty: the paper's 20."""
    scoring: StudyScoring = StudyScoring()
    overrides: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    """Dotted overrides of every training config, e.g. `model.context_tokens: 128`."""

    @property
    def synthetic(self) -> bool:
        return self.data.kind == "microworld"

    def seeds_of(self, mixture: str) -> tuple[int, ...]:
        return tuple(dict.fromkeys(self.seeds + tuple(self.extra_seeds.get(mixture, ()))))

    @model_validator(mode="after")
    def _consistent(self) -> StudyConfig:
        for key in ("mixtures", "seeds", "recipes", "benchmarks"):
            values = getattr(self, key)
            twice = sorted({v for v in values if values.count(v) > 1})
            if twice:
                raise ValueError(f"{key} names {twice} twice")
        for scale, spec in self.scales.items():
            missing = [r for r in self.recipes if r not in spec.sft]
            if missing:
                raise ValueError(f"scales.{scale}.sft lacks the recipes {missing}; it has {sorted(spec.sft)}")
        unknown = sorted(set(self.extra_seeds) - set(self.mixtures))
        if unknown:
            raise ValueError(f"extra_seeds names mixtures that are not in the study: {unknown}")
        unknown = sorted(set(self.checkpoint_tokens) - set(self.scales))
        if unknown:
            raise ValueError(f"checkpoint_tokens names scales that are not in the study: {unknown}")
        return self
