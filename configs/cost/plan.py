"""The plan of a run and of a study: steps, tokens, passes over each source, disk and GPU-hours.

In: validated configs; where known, the tokens of each source and the examples of the SFT set. Out: frozen plans, from
which configs.cost prints. Everything derived is derived here, so that no two places can disagree about a step count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from configs.cost.gpus import GPUS, Gpu
from configs.cost.model import (
    MASTER_BYTES,
    OPTIMIZER_BYTES,
    Flops,
    Memory,
    Parameters,
    flops_per_token,
    memory,
    parameters,
)
from configs.documents import tokens_needed
from configs.errors import ConfigError
from configs.grid import training_runs
from configs.load import BENCHMARKS, load_mixture, load_sources
from configs.schema import StudyConfig, TrainConfig
from configs.token_bytes import BYTES_PER_TOKEN, id_bytes


@dataclass(frozen=True)
class Hardware:
    """Assumptions behind GPU-hours; every plan prints them."""

    gpu: Gpu = GPUS["H200"]
    count: int = 1
    """GPUs at work together."""
    mfu: float = 0.4
    """Share of the peak that training reaches, attention counted in full: the middle of what is published for
    models of 0.1-1.3B parameters on H100 (36-51 %)."""


@dataclass(frozen=True)
class RunPlan:
    """One training run."""

    config: TrainConfig
    parameters: Parameters
    flops: Flops
    memory: Memory
    hardware: Hardware
    steps: int
    epochs: dict[str, float | None]
    """Passes over each source, or over the SFT set; None where its size is unknown."""
    measured_sizes: bool
    """Passes are over token shards that exist, not over published sizes."""

    @property
    def tokens(self) -> int:
        """Trained tokens. For fine-tuning the most it can be: every row filled to the context length."""
        return self.steps * self.config.tokens_per_step

    @property
    def source_tokens(self) -> dict[str, int]:
        """Trained tokens of each source; empty for fine-tuning."""
        weights = load_mixture(self.config.data.mixture).weights if self.config.stage == "pt" else {}
        return {source: round(weight * self.tokens) for source, weight in weights.items()}

    @property
    def total_flops(self) -> float:
        """Attention counted in full."""
        return self.tokens * self.flops.full

    @property
    def tokens_per_second(self) -> float:
        """Tokens that one device trains in a second."""
        return self.hardware.gpu.peak_flops * self.hardware.mfu / self.flops.full

    @property
    def gpu_hours(self) -> float | None:
        """GPU-hours of the run; None in fp32, since the assumed peak is that of bf16."""
        return self.tokens / self.tokens_per_second / 3600 if self.config.precision == "bf16" else None

    @property
    def export_steps(self) -> list[int]:
        """Steps of the checkpoints that are kept and scored: the milestones and the last step."""
        return self.config.milestones(self.steps)

    @property
    def exports(self) -> int:
        return len(self.export_steps)

    @property
    def checkpoint_bytes(self) -> int:
        """fp32 weights and both moments."""
        return self.parameters.total * (MASTER_BYTES + OPTIMIZER_BYTES)

    @property
    def export_bytes(self) -> int:
        """Weights in the precision of training."""
        return self.parameters.total * (2 if self.config.precision == "bf16" else 4)

    @property
    def disk_bytes(self) -> int:
        """Kept checkpoints and exports, and the resume points while the run lasts (one more while it is written)."""
        resume = self.checkpoint_bytes * (self.config.keep_checkpoints + 1) if self.config.checkpoint_every_steps else 0
        return self.exports * (self.checkpoint_bytes + self.export_bytes) + resume


@dataclass(frozen=True)
class StudyPlan:
    """All runs of a study."""

    study: StudyConfig
    runs: tuple[RunPlan, ...]

    @property
    def tokens(self) -> int:
        return sum(plan.tokens for plan in self.runs)

    @property
    def total_flops(self) -> float:
        return sum(plan.total_flops for plan in self.runs)

    @property
    def gpu_hours(self) -> float | None:
        """GPU-hours of all runs; None if any run's is."""
        known = [hours for plan in self.runs if (hours := plan.gpu_hours) is not None]
        return sum(known) if len(known) == len(self.runs) else None

    @property
    def disk_bytes(self) -> int:
        return sum(plan.disk_bytes for plan in self.runs)

    @property
    def shard_tokens(self) -> dict[str, int | None]:
        """Tokens on disk of each source: as many as a run needs, or all that are generated; None: all of local files.

        A hundredth more is held out, and the indices come to about as much.
        """
        data, known = self.study.data, load_sources().sources
        found: dict[str, int | None] = {}
        for source, tokens in tokens_needed(self.study).items():
            streamed = data.kind == "hub" and known[source].files is None
            if streamed or data.sample:
                found[source] = min(tokens, (known[source].published_tokens if streamed else None) or tokens)
            elif self.study.synthetic and known[source].files is None:
                found[source] = round(data.megabytes_per_source * 1e6 / BYTES_PER_TOKEN)
            else:
                found[source] = None
        return found

    @property
    def id_bytes(self) -> int:
        """Bytes of a token in a shard."""
        return id_bytes(self.study.tokenizer.vocab)

    @property
    def exports(self) -> int:
        return sum(plan.exports for plan in self.runs)

    @property
    def evaluations(self) -> int:
        """Pairs of checkpoint and benchmark to score."""
        return self.exports * len(self.study.benchmarks or BENCHMARKS)


def training_steps(config: TrainConfig, sft_examples: int | None = None) -> int:
    """Optimizer steps of a run. Raises ConfigError for a budget in epochs without the size of the SFT set."""
    if config.stage == "pt":
        return config.pretraining_steps
    if config.budget.epochs is None:
        return config.budget.steps or 0
    if not sft_examples:
        raise ConfigError(
            f"budget.epochs needs the number of examples of the SFT set {config.data.sft_set!r}",
            hint="prepare the set first, or set budget.steps",
        )
    return math.ceil(config.budget.epochs * sft_examples / config.batch.sequences)


def plan_run(
    config: TrainConfig,
    source_tokens: Mapping[str, int] | None = None,
    sft_examples: int | None = None,
    hardware: Hardware | None = None,
) -> RunPlan:
    """Sizes that are not given are the published ones of configs/sources.yaml."""
    known, hardware = load_sources(), hardware or Hardware()
    measured = (source_tokens if config.stage == "pt" else sft_examples) is not None
    if source_tokens is None:
        source_tokens = {name: spec.published_tokens for name, spec in known.sources.items() if spec.published_tokens}
    if sft_examples is None and config.data.sft_set in known.sft:
        sft_examples = known.sft[config.data.sft_set].published_examples
    steps = training_steps(config, sft_examples)
    epochs: dict[str, float | None] = {}
    if config.stage == "pt":
        for source, weight in load_mixture(config.data.mixture).weights.items():
            size = source_tokens.get(source)
            epochs[source] = weight * steps * config.tokens_per_step / size if size else None
    else:
        epochs[config.data.sft_set] = steps * config.batch.sequences / sft_examples if sft_examples else None
    return RunPlan(
        config=config,
        parameters=parameters(config.model),
        flops=flops_per_token(config.model),
        memory=memory(config, max(1, hardware.count // config.parallel.tensor)),
        hardware=hardware,
        steps=steps,
        epochs=epochs,
        measured_sizes=measured,
    )


def plan_study(study: StudyConfig, hardware: Hardware | None = None) -> StudyPlan:
    """Sizes are the published ones for data from the Hub, unknown for any other."""
    source_tokens: dict[str, int] | None = None if study.data.kind == "hub" else {}
    plans = (plan_run(config, source_tokens, hardware=hardware) for config in training_runs(study))
    return StudyPlan(study, tuple(plans))
