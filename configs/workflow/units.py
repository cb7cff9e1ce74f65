"""The units of a study: what is made once, out of what, with what, and where it lies.

In: a study. Out: `Unit`s, each behind those that it needs. A training exports its own checkpoints, so that their export
is no unit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.artifacts import fingerprint
from configs.cost.plan import Hardware, RunPlan, plan_study
from configs.documents import ExternalInputs, sft_sets_of, sources_of
from configs.layout import RunFolder, StudyFolder, stage_name
from configs.load import load_benchmarks, load_mixture, load_sources
from configs.schema import StudyConfig

KINDS = ("tokenize", "pretrain", "finetune", "score", "analyse")
TRAININGS = ("pretrain", "finetune")
DATA = ("mixtures/sources", "mixtures/tokens")
CODE = {
    "tokenize": (
        *("configs", *DATA, "mixtures/contamination", "mixtures/microworld"),
        *("mixtures/microworld/relations.yaml", "mixtures/microworld/declaration.yaml"),
        *("mixtures/tokenize.py", "mixtures/parallel.py"),
    ),
    "pretrain": ("configs", *DATA, "mixtures/blend", "mixtures/parallel.py", "megatron_train"),
    "finetune": ("configs", *DATA, "mixtures/blend", "mixtures/parallel.py", "megatron_train"),
    "score": ("configs", *DATA, "mixtures/parallel.py", "ray_eval"),
    "analyse": ("configs", "configs/drawing", "analysis"),
}
"""Kind of unit -> the code that makes it: a change elsewhere makes no unit stale."""
TOKENS_AN_EXAMPLE = 60
"""Forwarded to score one: 5.16 million for the 87,179 of all 20 benchmarks (docs/scoring.md)."""
UNKNOWN_EXAMPLES = 1000
"""Assumed for a benchmark whose file does not say how many it has."""
SCORING_FLOPS = 1 / 3
"""FLOPs of scoring a token, as a share of training's: there is no backward pass."""


@dataclass(frozen=True)
class Unit:
    name: str
    """`<kind>/<what>`, e.g. `pretrain/240m/V1P0/seed0`; the study has no other of this name."""
    inputs: tuple[str, ...]
    """Names of the units whose results it reads."""
    identity: Mapping[str, Any]
    """Everything of its configuration that changes its result; JSON."""
    gpus: int = 0
    """GPUs that work on it together; 0: none is needed."""
    tokens: int = 0
    """Trained, or forwarded to score."""
    flops: float = 0.0
    run: RunPlan | None = None
    """The plan of the training, or of the training that is scored."""
    folder: RunFolder | None = None
    """The run folder of the training, or of the checkpoint that is scored."""
    again: bool = False
    """Made anew, whatever is there."""
    step: int | None = None
    """The step of the checkpoint that is scored; None: the last one, whose number may depend on the SFT set's size."""

    @property
    def kind(self) -> str:
        return self.name.partition("/")[0]

    def gpu_seconds(self, hardware: Hardware) -> float | None:
        """Seconds on one GPU at the speed that `configs.cost.plan` assumes; None in fp32, where none is assumed."""
        if self.run is None:
            return 0.0
        if self.run.config.precision != "bf16":
            return None
        return self.flops / (hardware.gpu.peak_flops * hardware.mfu)


def study_units(study: StudyConfig, runs: Path, reads: ExternalInputs | None = None) -> list[Unit]:
    """All units of a study. Raises ConfigError as `plan_run` does.

    reads: what it reads from outside; None: nobody will ask whether a unit is stale.
    """
    reads = reads or ExternalInputs()
    questions = _questions(study, reads)
    found = [Unit("tokenize", (), _documents(study, reads, questions))]
    scoring_tokens = _scoring_tokens(study)
    for plan in plan_study(study).runs:
        found += _units_of_run(study, runs, plan, questions, scoring_tokens)
    scores = tuple(unit.name for unit in found if unit.kind == "score")
    return [*found, Unit("analyse", scores, {"study": study.name})]


def _questions(study: StudyConfig, reads: ExternalInputs) -> dict[str, Any]:
    """What every checkpoint is asked: the identity of its scores."""
    return {
        "benchmarks": {
            spec.slug: fingerprint(spec.model_dump(mode="json"))[:12] for spec in load_benchmarks(study.benchmarks)
        },
        "rows": dict(reads.rows),
        "shots": dict(reads.shots),
        "scoring": study.scoring.model_dump(mode="json"),
        "data": study.data.model_dump(mode="json"),
    }


def _scoring_tokens(study: StudyConfig) -> int:
    """Tokens that are forwarded to score one checkpoint."""
    sample = study.scoring.sample or math.inf
    examples = sum(min(spec.examples or UNKNOWN_EXAMPLES, sample) for spec in load_benchmarks(study.benchmarks))
    return TOKENS_AN_EXAMPLE * round(examples)


def _units_of_run(
    study: StudyConfig, runs: Path, plan: RunPlan, questions: Mapping[str, Any], scoring_tokens: int
) -> Iterator[Unit]:
    """A training, and the scores of the checkpoints that it keeps."""
    config = plan.config
    where = f"{config.scale}/{config.data.mixture}/seed{config.seed}"
    identity = config.identity()
    if config.stage == "pt":
        name, inputs = f"pretrain/{where}", ["tokenize"]
        identity["weights"] = load_mixture(config.data.mixture).weights
    else:
        name, inputs = f"finetune/{where}/{config.recipe}", ["tokenize", f"pretrain/{where}"]
    folder = StudyFolder(runs, study.name).run(
        config.scale, config.data.mixture, config.seed, stage_name(config.recipe if config.stage == "sft" else "")
    )
    gpus = study.scales[config.scale].gpus
    yield Unit(name, tuple(inputs), identity, gpus, plan.tokens, plan.total_flops, plan, folder)
    for step in (*plan.export_steps[:-1], None):
        yield Unit(
            f"score/{folder.name}/{'last' if step is None else f'step-{step:07d}'}",
            (name,),
            {**questions, "step": step},
            gpus=min(1, gpus),
            tokens=scoring_tokens,
            flops=scoring_tokens * plan.flops.full * SCORING_FLOPS,
            run=plan,
            folder=folder,
            step=step,
        )


def _documents(study: StudyConfig, reads: ExternalInputs, questions: Mapping[str, Any]) -> dict[str, Any]:
    """Identity of the unit `tokenize`: which documents are read, and what is made of them."""
    known = load_sources()
    left_out = ("benchmarks", "rows") if study.data.decontaminate is not None else ()
    return {
        "data": study.data.model_dump(mode="json"),
        "tokenizer": study.tokenizer.model_dump(mode="json"),
        "tokenizer_file": reads.tokenizer_file,
        "sources": {name: known.sources[name].model_dump(mode="json") for name in sorted(sources_of(study))},
        "sft": {name: known.sft[name].model_dump(mode="json") for name in sorted(sft_sets_of(study))},
        "files": dict(reads.files),
        **{key: questions[key] for key in left_out},
    }
