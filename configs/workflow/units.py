"""The units of a study: what is made once, out of what, with what, and where it lies.

In: a study. Out: `Unit`s, each behind those that it needs. A training exports its own checkpoints, so that their export
is no unit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from configs.artifacts import fingerprint
from configs.cost.plan import Hardware, RunPlan, plan_run
from configs.documents import Reads, sft_sets_of, sources_of
from configs.layout import RunFolder, StudyFolder, stage_name
from configs.load import load_benchmarks, load_mixture, load_sources, pretrain_config, sft_config
from configs.schema import StudyConfig

KINDS = ("tokenize", "pretrain", "finetune", "score", "analyse")
DATA = ("mixtures/sources", "mixtures/tokens")
CODE = {
    "tokenize": (
        *("configs", *DATA, "mixtures/contamination", "mixtures/microworld"),
        *("mixtures/tokenize.py", "mixtures/parallel.py", "mixtures/progress.py"),
    ),
    "pretrain": ("configs", *DATA, "mixtures/blend", "mixtures/parallel.py", "megatron_train"),
    "finetune": ("configs", *DATA, "mixtures/blend", "mixtures/parallel.py", "megatron_train"),
    "score": ("configs", *DATA, "mixtures/parallel.py", "ray_eval"),
    "analyse": ("configs", "analysis"),
}
"""Kind of unit -> the code that makes it: a change elsewhere makes no unit stale."""
TOKENS_AN_EXAMPLE = 60
"""Forwarded to score one: 5.16 million for the 87,179 of all 20 benchmarks (docs/scoring.md)."""
UNKNOWN_EXAMPLES = 1000
"""Of a benchmark whose file does not say how many it has."""
SCORING_FLOPS = 1 / 3
"""Of training's for a token: there is no backward pass."""


@dataclass(frozen=True)
class Unit:
    name: str
    """`<kind>/<what>`, e.g. `pretrain/240m/V1P0/seed0`; the study has no other of this name."""
    inputs: tuple[str, ...]
    """Names of the units whose results it reads."""
    identity: Mapping[str, Any]
    """Everything of its configuration that changes its result; JSON."""
    gpus: int = 0
    """That work on it together; 0: none is needed."""
    tokens: int = 0
    """Trained, or forwarded to score."""
    flops: float = 0.0
    run: RunPlan | None = None
    """Of a training."""
    folder: RunFolder | None = None
    """Of the training, or of the checkpoint that is scored."""
    again: bool = False
    """Made anew, whatever is there."""
    step: int | None = None
    """Of the checkpoint that is scored; None: the last, which passes over an SFT set decide once its size is known."""

    @property
    def kind(self) -> str:
        return self.name.partition("/")[0]

    def gpu_seconds(self, hardware: Hardware) -> float | None:
        """On one GPU, speed taken for granted as in `configs.cost.plan`; None in fp32, whose speed nobody assumes."""
        if self.run is None:
            return 0.0
        if self.run.config.precision != "bf16":
            return None
        return self.flops / (hardware.gpu.peak_flops * hardware.mfu)


def study_units(study: StudyConfig, runs: Path, reads: Reads | None = None) -> list[Unit]:
    """All units of a study. Raises ConfigError as `plan_run` does.

    reads: what it reads from outside; None: nobody will ask whether a unit is stale.
    """
    reads = reads or Reads()
    questions = _questions(study, reads)
    found = [Unit("tokenize", (), _documents(study, reads, questions))]
    for scale in study.scales:
        tunings = {recipe: plan_run(sft_config(study, scale, recipe, seed=0)) for recipe in study.recipes}
        for mixture in study.mixtures:
            pretraining = plan_run(pretrain_config(study, scale, mixture, seed=0))
            for seed in study.seeds_of(mixture):
                model = _Model(study, runs, scale, mixture, seed, questions)
                found += model.units(pretraining, tunings)
    scores = tuple(unit.name for unit in found if unit.kind == "score")
    return [*found, Unit("analyse", scores, {"study": study.name})]


@dataclass(frozen=True)
class _Questions:
    """What every checkpoint is asked."""

    identity: Mapping[str, Any]
    tokens: int
    """Forwarded to score one checkpoint."""


def _questions(study: StudyConfig, reads: Reads) -> _Questions:
    specs = load_benchmarks(study.benchmarks)
    sample = study.scoring.sample or math.inf
    identity = {
        "benchmarks": {spec.slug: fingerprint(spec.model_dump(mode="json"))[:12] for spec in specs},
        "rows": dict(reads.rows),
        "shots": dict(reads.shots),
        "scoring": study.scoring.model_dump(mode="json"),
        "data": study.data.model_dump(mode="json"),
    }
    examples = sum(min(spec.examples or UNKNOWN_EXAMPLES, sample) for spec in specs)
    return _Questions(identity, TOKENS_AN_EXAMPLE * round(examples))


@dataclass(frozen=True)
class _Model:
    """One model of a study: its pretraining, every fine-tuning of it, and the scores of all their checkpoints."""

    study: StudyConfig
    runs: Path
    scale: str
    mixture: str
    seed: int
    questions: _Questions

    def units(self, pretraining: RunPlan, tunings: Mapping[str, RunPlan]) -> Iterator[Unit]:
        """tunings: recipe -> plan. The plans are those of some model; only their config says of which."""
        where = f"{self.scale}/{self.mixture}/seed{self.seed}"
        first = f"pretrain/{where}"
        yield from self._of_one_run(first, ("tokenize",), self._own(pretraining), "pt")
        for recipe, plan in tunings.items():
            inputs = ("tokenize", first)
            yield from self._of_one_run(f"finetune/{where}/{recipe}", inputs, self._own(plan), stage_name(recipe))

    def _own(self, plan: RunPlan) -> RunPlan:
        return replace(plan, config=plan.config.of(self.mixture, self.seed))

    def _of_one_run(self, name: str, inputs: tuple[str, ...], plan: RunPlan, stage: str) -> Iterator[Unit]:
        """A training and the scores of the checkpoints that it keeps."""
        study = StudyFolder(self.runs, self.study.name)
        folder = RunFolder(study, self.scale, self.mixture, self.seed, stage)
        gpus = self.study.scales[self.scale].gpus
        identity = plan.config.identity()
        if plan.config.stage == "pt":
            identity["weights"] = load_mixture(plan.config.data.mixture).weights
        yield Unit(name, inputs, identity, gpus, plan.tokens, plan.total_flops, plan, folder)
        for step in (*plan.export_steps[:-1], None):
            what = "last" if step is None else f"step-{step:07d}"
            yield Unit(
                f"score/{folder.name}/{what}",
                (name,),
                {**self.questions.identity, "step": step},
                gpus=min(1, gpus),
                tokens=self.questions.tokens,
                flops=self.questions.tokens * plan.flops.full * SCORING_FLOPS,
                run=plan,
                folder=folder,
                step=step,
            )


def _documents(study: StudyConfig, reads: Reads, questions: _Questions) -> dict[str, Any]:
    """Which documents, and what becomes of them."""
    known = load_sources()
    left_out = ("benchmarks", "rows") if study.data.decontaminate is not None else ()
    return {
        "data": study.data.model_dump(mode="json"),
        "tokenizer": study.tokenizer.model_dump(mode="json"),
        "tokenizer_file": reads.tokenizer_file,
        "sources": {name: known.sources[name].model_dump(mode="json") for name in sorted(sources_of(study))},
        "sft": {name: known.sft[name].model_dump(mode="json") for name in sorted(sft_sets_of(study))},
        "files": dict(reads.files),
        **{key: questions.identity[key] for key in left_out},
    }
