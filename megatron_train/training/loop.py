"""The training loop that pretraining and fine-tuning share.

In: a `TrainJob` (config, run folder, data, what to start from). Out: the run folder: metrics.jsonl, checkpoints,
exports and, last, DONE. A run that was killed goes on from its newest complete checkpoint and ends with the same bytes.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from configs import load as config_files
from configs.artifacts import read_object, write_json
from configs.clock import clock
from configs.cost.model import flops_per_token
from configs.errors import Preempted
from configs.exports import EXPORT_JSON
from configs.runtime import locks, signals
from megatron_train.checkpoints import checkpoint
from megatron_train.checkpoints.checkpoint import Checkpoints
from megatron_train.checkpoints.export import export, load_export
from megatron_train.checkpoints.resume import check_start, earlier_starts, prepare_resume
from megatron_train.data import MicroBatch, StepData
from megatron_train.job import TrainJob
from megatron_train.kernels.device import peak_flops
from megatron_train.kernels.kernels import Kernels, choose_kernels
from megatron_train.model.model import LanguageModel, build_model
from megatron_train.optimizer.flat_adamw import Optimizer, learning_rate
from megatron_train.ranks import parallel, place, watchdog
from megatron_train.ranks.parallel import Ranks
from megatron_train.training.metrics import Metrics, keep_until
from megatron_train.training.step import make_optimizer, micro_loss, train_step
from megatron_train.training.tracking import Tracking


def train(job: TrainJob) -> None:
    """Run (or resume, or skip) a job; see the module's docstring."""
    config, folder = job.config, job.folder
    ranks = parallel.initialise(config.parallel.tensor, config.batch.sequences, config.hang_timeout_s)
    try:
        with contextlib.ExitStack() as held:
            if ranks.from_main(lambda: _begins(job, held)):
                with (
                    Tracking(job, ranks.is_main) as tracking,
                    watchdog.watching(ranks, config.hang_timeout_s, folder.path / "hang"),
                ):
                    _train(job, ranks, tracking)
    finally:
        parallel.shut_down()


def _begins(job: TrainJob, held: contextlib.ExitStack) -> bool:
    """Lock the run folder for as long as `held` is open; False where the run is to be skipped (main rank).

    Raises ResourceError where another process works in the folder, ArtifactError where the run cannot start there.
    """

    def skipped() -> bool:
        return job.resume == "auto" and job.is_done

    if not skipped():
        held.enter_context(locks.run_lock(job.folder))
        if not skipped():  # another process may have finished it in the meantime
            check_start(job)
            return True
    print(f"{job.folder.name}: done already, skipped ({job.folder.done})", flush=True)
    return False


def _train(job: TrainJob, ranks: Ranks, tracking: Tracking) -> None:
    """Train from the newest checkpoint, or from the start, to the last step (all ranks)."""
    ranks.from_main(lambda: _prepare_folder(job, ranks))
    kernels = choose_kernels(job.config, ranks, job.folder.path / "kernels.json")
    model = build_model(
        job.config.model,
        tensor_parallel=ranks.tensor_size,
        device=ranks.device,
        seed=job.config.seed,
        norm=kernels.norm.builder,
        compiled=kernels.compiled,
    )
    found, unexported = _starts(job)
    if job.parent and not found:
        load_export(job.parent, model, job.config.model, ranks)
    # After the parent's weights: the optimizer makes its fp32 copy of the weights when it is built.
    optimizer = make_optimizer(model, job.config, ranks, kernels)
    kernels.compile(model)
    kept = job.milestones, job.config.keep_checkpoints
    with Checkpoints(job.folder.checkpoints, optimizer, ranks, job.inputs, *kept) as checkpoints:
        first = tokens = 0
        for step, path in unexported:
            tokens = checkpoints.load_newest([(step, path)])["tokens"]
            _export(job, step, tokens, model, ranks)
        if found:
            manifest = checkpoints.load_newest(found)
            first, tokens = manifest["step"], manifest["tokens"]
        losses = _show_start(job, first, kernels, optimizer, ranks, tracking)
        data = job.data(ranks)
        flops, peak = flops_per_token(job.config.model), peak_flops(ranks.device, job.config.precision)
        metrics = Metrics(job.folder.metrics, ranks, job.steps, first, losses, data.describe, flops, peak, tracking)
        loop = _Loop(job, ranks, kernels, model, optimizer, data, checkpoints, metrics, job.milestones, tokens)
        started = time.perf_counter()
        for step in range(first + 1, job.steps + 1):
            loop.update(step)
            loop.log(step)
            loop.validate(step)
            loop.keep(step)

    place.at(job.steps, "end")
    if ranks.is_main:
        _finish(job, loop.tokens)
        print(f"{job.folder.name}: done in {clock(time.perf_counter() - started)} ({job.folder.path})", flush=True)
    ranks.barrier()


@dataclass
class _Loop:
    """The parts of a step, in the order in which `_train` calls them."""

    job: TrainJob
    ranks: Ranks
    kernels: Kernels
    model: LanguageModel
    optimizer: Optimizer
    data: StepData
    checkpoints: Checkpoints
    metrics: Metrics
    milestones: list[int]
    tokens: int
    """Tokens trained so far."""

    def update(self, step: int) -> None:
        """Forward, backward, update."""
        place.at(step, "data")
        batch = self.data.step(step)
        lr = learning_rate(self.job.config.optimizer, step, self.job.steps)
        chunk = self.kernels.loss_chunk_tokens
        loss, norm = train_step(self.model, self.optimizer, batch.micro, lr, self.ranks, chunk, step=step)
        self.tokens += batch.tokens
        self.metrics.add(step, self.tokens, batch.tokens, lr, loss, norm)

    def log(self, step: int) -> None:
        if self._is_due(step, self.job.config.log_every_steps):
            place.at(step, "log")
            self.metrics.flush(show=True)

    def validate(self, step: int) -> None:
        if self.job.validation and self._is_due(step, self.job.config.validation.every_steps):
            place.at(step, "validation")
            self.metrics.flush()
            # Flushed before, so that the time of the validation does not count as the time of steps.
            losses = _validate(self.model, self.job, self.ranks, self.kernels.loss_chunk_tokens)
            self.metrics.validation(step, self.tokens, losses, self.job.bytes_per_token)

    def keep(self, step: int) -> None:
        """Export a milestone and save checkpoints. Raises Preempted after saving, where the run was asked to end."""
        # All ranks must stop at the same step, and the notice reaches them at different moments: they agree on it.
        notice = self.ranks.any(signals.received() is not None)
        every = self.job.config.checkpoint_every_steps
        milestone = step in self.milestones  # the last step always is one
        if notice or milestone or (every and step % every == 0):
            self.metrics.flush()  # first: a step whose loss is not finite must not be kept
            if milestone:
                place.at(step, "export")
                # Before the checkpoint: a run that finds the checkpoint of a milestone may rely on its export.
                _export(self.job, step, self.tokens, self.model, self.ranks)
            place.at(step, "checkpoint")
            self.checkpoints.save(step, self.tokens)
        if notice and step < self.job.steps:
            self.checkpoints.wait()
            raise _preempted(self.job, step)

    def _is_due(self, step: int, every: int | None) -> bool:
        """Is it the last step, or one of every so many? 0 or None: the last only."""
        return step == self.job.steps or bool(every and step % every == 0)


def _prepare_folder(job: TrainJob, ranks: Ranks) -> None:
    prepare_resume(job)
    job.folder.path.mkdir(parents=True, exist_ok=True)
    config_files.save(job.config, job.folder.path / "config.yaml")
    record = job.provenance(hardware(ranks), ranks.world)
    write_json(job.folder.provenance, record | {"earlier_starts": earlier_starts(job, record)})


def _starts(job: TrainJob) -> tuple[list[tuple[int, Path]], list[tuple[int, Path]]]:
    """(checkpoints to go on from, those whose export is not there any more); each (step, folder), oldest first.

    A checkpoint behind a milestone that has neither is of no use: it would never be exported.
    """
    found = checkpoint.complete(job.folder.checkpoints)
    missing = {step for step in job.milestones if job.exported(step) is None}
    never_exported = min(missing - {step for step, _ in found}, default=job.steps + 1)
    found = [(step, path) for step, path in found if step < never_exported]
    return found, [(step, path) for step, path in found if step in missing]


def _show_start(
    job: TrainJob, first: int, kernels: Kernels, optimizer: Optimizer, ranks: Ranks, tracking: Tracking
) -> list[float]:
    """Print what computes, and bring metrics.jsonl and the curves to the step `first` (main rank).

    Returns the losses up to there; none on other ranks.
    """
    if not ranks.is_main:
        return []
    losses = keep_until(job.folder.metrics, first)
    tracking.replay(job.folder.metrics)
    lines = kernels.lines(job.config, optimizer.describe())
    print(f"running on   {hardware(ranks)}", *lines, sep="\n", flush=True)
    return losses


def _export(job: TrainJob, step: int, tokens: int, model: LanguageModel, ranks: Ranks) -> None:
    """Write the export of a step; export.json says which run and inputs its weights come from."""
    run = {"run": job.folder.name, "study": job.folder.study.name}
    facts = {"step": step, "tokens": tokens, "inputs": job.inputs, **run}
    export(job.folder.export(step), model, job.config.model, ranks, job.tokenizer, facts)


def _preempted(job: TrainJob, step: int) -> Preempted:
    return Preempted(
        f"{signals.received() or 'a signal'} came; saved after step {step} of {job.steps}",
        where=job.folder.path,
        hint=f"the same command{'' if job.resume == 'auto' else ' without --resume'} goes on from there",
    )


def _finish(job: TrainJob, tokens: int) -> None:
    """Remove resume points but the last, and write DONE, which names the exports (main rank)."""
    folder, milestones = job.folder, job.milestones
    checkpoint.prune(folder.checkpoints, keep=set(milestones), newest=1)
    exports = {str(step): read_object(folder.export(step) / EXPORT_JSON)["checkpoint"] for step in milestones}
    done = {"step": job.steps, "tokens": tokens, "inputs": job.inputs, "export": exports}
    write_json(folder.done, done, sealed=True)


@torch.no_grad()
def _validate(model: LanguageModel, job: TrainJob, ranks: Ranks, chunk: int) -> dict[str, float]:
    """Mean loss of a token, by source; data-parallel ranks share the sequences."""
    model.eval()
    losses = {}
    for source, ids in job.validation.items():
        total = torch.zeros((), device=ranks.device)
        mine = torch.from_numpy(ids[ranks.data :: ranks.data_size])  # none, where sequences are fewer than ranks
        for piece in mine.split(job.config.batch.micro_sequences) if len(mine) else ():
            tokens, labels = piece[:, :-1].contiguous(), piece[:, 1:].contiguous()
            weights = torch.full(tokens.shape, 1.0 / (len(ids) * tokens.shape[1]))
            total += micro_loss(model, MicroBatch(tokens, labels, weights).to(ranks.device), ranks, chunk)
        losses[source] = ranks.sum_over_data(total).item()
    model.train()
    return losses


def hardware(ranks: Ranks) -> str:
    if ranks.device.type == "cuda":
        return f"{ranks.world} x {torch.cuda.get_device_name(ranks.device)}"
    threads = torch.get_num_threads()
    each = f"{threads} CPU thread{'s' * (threads > 1)}"
    return f"{ranks.world} process{'es' * (ranks.world > 1)} x {each}"
