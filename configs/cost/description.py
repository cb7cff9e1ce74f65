"""A plan as lines for people.

In: the plan of a run or of a study. Out: text: parameters, FLOPs, budget, passes, memory, disk, compute.
"""

from __future__ import annotations

from configs.cost.model import Parameters
from configs.cost.plan import RunPlan, StudyPlan
from configs.token_bytes import BYTES_PER_TOKEN

GIB = 2**30


def describe(plan: RunPlan | StudyPlan) -> str:
    """The plan as lines for people."""
    return "\n".join(_run_lines(plan) if isinstance(plan, RunPlan) else _study_lines(plan))


def _run_lines(plan: RunPlan) -> list[str]:
    config, count, mem = plan.config, plan.parameters, plan.memory
    sft = config.stage == "sft"
    what = f"fine-tuning, recipe {config.recipe}" if sft else f"pretraining, mixture {config.data.mixture}"
    tie = "tied" if count.tied else "untied"
    budget = f"{plan.steps:,} steps x {config.batch.sequences} sequences x {config.model.context_tokens:,} tokens"
    passes = ", ".join(_passes(plan, name, n) for name, n in plan.epochs.items())
    activations = _gib(mem.activations_estimate)
    resume = f" + {config.keep_checkpoints + 1} resume points" if config.checkpoint_every_steps else ""
    return [
        f"run          {config.scale}, {what}, seed {config.seed}, {config.precision}",
        f"parameters   {_parts(count)}",
        f"             {_millions(count.total)} with the embedding ({tie}), "
        f"{_millions(count.outside_embedding)} outside it",
        f"FLOPs/token  forward + backward: {plan.flops.full / 1e9:.4g} G with full attention, "
        f"{plan.flops.causal / 1e9:.4g} G with causal attention",
        f"budget       {budget} = {'at most ' if sft else ''}{_count(plan.tokens)} tokens "
        f"({plan.tokens / count.total:.3g} a parameter)",
        f"passes       {passes}{'' if plan.measured_sizes else ' (of published sizes)'}",
        f"memory       of a device (tensor {config.parallel.tensor}): weights {_gib(mem.weights)}, gradients "
        f"{_gib(mem.gradients)}, moments {_gib(mem.moments)}, activations about {activations} (an estimate)"
        f"{_fit(plan)}",
        f"disk         {plan.exports} x (checkpoint {_gib(plan.checkpoint_bytes)} + export {_gib(plan.export_bytes)})"
        f"{resume} = {_gib(plan.disk_bytes)}",
        f"compute      {_compute(plan)}",
    ]


def _passes(plan: RunPlan, name: str, passes: float | None) -> str:
    times = "unknown" if passes is None else f"{passes:.3g}"
    tokens = plan.source_tokens.get(name)
    return f"{name} {times}" if tokens is None else f"{name} {times} ({_count(tokens)} tokens)"


def _study_lines(plan: StudyPlan) -> list[str]:
    study = plan.study
    grid = f"{len(study.mixtures)} mixtures, {len(study.scales)} scales, {study.data.kind} data"
    lines = [f"study        {study.name}: {grid}"]
    for scale in study.scales:
        for stage in ("", *study.recipes):
            runs = [run for run in plan.runs if (run.config.scale, run.config.recipe) == (scale, stage)]
            part = StudyPlan(study, tuple(runs))
            name = f"{scale} {'fine-tuning ' + stage if stage else 'pretraining'}"
            tokens = f"{'at most ' if stage else ''}{_count(runs[0].tokens)} tokens"
            hours = "" if part.gpu_hours is None else f", {part.gpu_hours:,.0f} GPU-hours"
            lines.append(f"  {name:<28} {len(runs)} runs x {runs[0].steps:,} steps, {tokens} each{hours}")
        passes: dict[str, float] = {}
        for run in plan.runs:
            for source, n in run.epochs.items():
                if run.config.scale == scale and run.config.stage == "pt" and n is not None:
                    passes[source] = max(n, passes.get(source, 0.0))
        if passes:
            source = max(passes, key=lambda name: passes[name])
            most = f"at most {passes[source]:.3g} over a source of known size ({source})"
            lines.append(f"  {scale + ' passes':<28} {most}")
    return [
        *lines,
        f"runs         {len(plan.runs)}, {_count(plan.tokens)} tokens",
        f"scoring      {plan.exports} checkpoints, {plan.evaluations:,} evaluations",
        f"disk         {_gib(plan.disk_bytes)} with every resume point kept until its run ends",
        f"token shards {_shards(plan)}",
        f"compute      {_compute(plan)}",
    ]


def _shards(plan: StudyPlan) -> str:
    known = [tokens for tokens in plan.shard_tokens.values() if tokens is not None]
    tokens = sum(known)
    parts = [f"{_gib(tokens * plan.id_bytes)}: {_count(tokens)} tokens of {plan.id_bytes} bytes"] if known else []
    if whole := len(plan.shard_tokens) - len(known):
        each = f"{plan.id_bytes / BYTES_PER_TOKEN:g} bytes for each byte of text"
        parts.append(f"{'all local documents' if not known else f'all of {whole} local sources'}, about {each}")
    return f"{', and '.join(parts)}, where --data is"


def _fit(plan: RunPlan) -> str:
    """Whether a GPU holds it; nothing in fp32, which is for CPUs."""
    if plan.config.precision != "bf16":
        return ""
    need, gpu = plan.memory.total_estimate, plan.hardware.gpu
    verdict = "" if need <= gpu.memory_bytes else ": TOO MUCH, lower batch.micro_sequences or raise parallel.tensor"
    return f" = {_gib(need)} of {_gib(gpu.memory_bytes)} ({gpu.name}){verdict}"


def _compute(plan: RunPlan | StudyPlan) -> str:
    flops = f"{plan.total_flops:.3g} FLOPs (full attention)"
    if plan.gpu_hours is None:
        return f"{flops}; no GPU-hours: the assumed peak is that of bf16, this is fp32"
    hardware = plan.hardware if isinstance(plan, RunPlan) else plan.runs[0].hardware
    speed = f", {plan.tokens_per_second:,.0f} tokens/s a device" if isinstance(plan, RunPlan) else ""
    together = f"; {plan.gpu_hours / hardware.count:,.1f} h on {hardware.count}" if hardware.count > 1 else ""
    return (
        f"{flops}; {plan.gpu_hours:,.1f} GPU-hours ({hardware.gpu.name}) at {hardware.mfu:.0%} of "
        f"{hardware.gpu.peak_flops / 1e12:,.4g} TFLOP/s, both assumed{speed}{together}"
    )


def _parts(count: Parameters) -> str:
    parts = {"embedding": count.embedding, "attention": count.attention, "MLP": count.mlp, "norms": count.norms}
    if not count.tied:
        parts["output"] = count.embedding
    return ", ".join(f"{name} {_millions(number)}" for name, number in parts.items())


def _millions(number: int) -> str:
    return f"{number / 1e6:,.1f}M" if number >= 1e6 else f"{number:,}"


def _count(number: int) -> str:
    return f"{number / 1e9:,.4g}B" if number >= 1e9 else f"{number:,}"


def _gib(number: int) -> str:
    return f"{number / GIB:,.1f} GiB" if number >= GIB else f"{number / 2**20:,.1f} MiB"
