"""A warm worker: does the tasks of a queue, one after another on one device.

Between tasks it keeps the batches of the last plans, the model, into which the next checkpoint's weights are copied
where the shapes are equal, and the weights of the checkpoint that it is told will come next: these are read and hashed
on a side thread while the device computes.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from configs.artifacts import fingerprint
from configs.errors import ArtifactError, MagicError, ResourceError
from configs.runtime.versions import code_sha256
from ray_eval.checkpoints.checkpoint import Checkpoint
from ray_eval.models.forward_counts import NOTHING, ForwardCounts
from ray_eval.models.llama import Llama
from ray_eval.models.precision import WIDER
from ray_eval.models.scorer import CausalLM, Scorer, Sums, near_ties
from ray_eval.models.tree_attention import Form
from ray_eval.models.weights import Weights
from ray_eval.plans.plan import Plan
from ray_eval.results import score_metadata, score_table, write_scores
from ray_eval.workers.parts import Parts, naming_disk_errors, remove_parts
from ray_eval.workers.task_queue import Task

PLANS_KEPT = 4


@dataclass(frozen=True)
class ScoreJob:
    """A checkpoint to score."""

    checkpoint: Checkpoint
    precision: str


@dataclass(frozen=True)
class Order:
    """A task with what it takes to do it, but for the plan."""

    task: Task
    job: ScoreJob
    identity: str | None
    """What whoever opened the job found (see `Reply`); None: nobody has yet."""
    coming: ScoreJob | None
    """What will probably be opened next."""


@dataclass(frozen=True)
class Reply:
    """What became of a task."""

    identity: str = ""
    """Hash of all that the numbers of a unit depend on; workers share a job only if theirs is the same."""
    units: tuple[range, ...] = ()
    """After an opening: all units of the job."""
    missing: tuple[range, ...] = ()
    """After an opening: the units without a part file."""
    counts: ForwardCounts = NOTHING
    """What was computed now."""
    whole: ForwardCounts = NOTHING
    """After a finish: what the whole checkpoint took, wherever it was computed."""
    error: MagicError | None = None
    """What the user must mend: of this checkpoint, or, if it is a ResourceError, of the machine."""


class Worker:
    """Does orders. Holds one model, and the weights of one more checkpoint in the machine's memory."""

    def __init__(self, work: float | None = None, num_gpus: int = 1) -> None:
        """work: as `Scorer.units`; num_gpus: that share a model; 1: or a CPU.

        Raises ResourceError where fewer are here.
        """
        if 1 < num_gpus > torch.cuda.device_count():
            problem = f"{num_gpus} GPUs are to share a model, {torch.cuda.device_count()} are here"
            raise ResourceError(problem, hint="fewer --gpus-per-worker")
        self._work = work
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._devices = ["cpu"] if self._device == "cpu" else [f"cuda:{i}" for i in range(num_gpus)]
        if self._device == "cpu":
            torch.set_num_threads(1)  # several actors beat several threads, which wait for each other at every layer
        self._scorers: dict[tuple[str, bool, Form, int], Scorer] = {}
        self._model: CausalLM | None = None
        self._loaded: ScoreJob | None = None
        self._weights: Weights | None = None
        self._reader = ThreadPoolExecutor(1)
        self._coming: tuple[ScoreJob, Future[Weights | None]] | None = None

    def host(self) -> str:
        return socket.gethostname()

    def do(self, plan: Plan, order: Order) -> Reply:
        """A user error (a corrupt checkpoint, a full disk) is a reply, not a crash."""
        try:
            model = self._load(order.job)
            self._read_ahead(order.coming)
            # Forms of attention round differently: all workers of a job take the one in which it was begun.
            for form in model.forms[0]:  # the fastest, or the one in which another worker began
                scorer = self._scorer(plan, model, form)
                facts = self._facts(scorer, order.job)
                identity = fingerprint(facts)
                if order.identity in (None, identity):
                    break
            else:
                return Reply(identity)
            parts = Parts(order.job.checkpoint.score_file, facts)
            if order.task.unit is not None:
                sums, counts = _score(scorer, model, order.job, order.task.unit)
                parts.write(order.task.unit, sums, counts)
                return Reply(identity, counts=counts)
            units = tuple(scorer.units(model, self._work))
            if order.task.kind == "open":
                return Reply(identity, units, tuple(unit for unit in units if parts.read(unit) is None))
            return self._finish(scorer, model, order.job, units, parts, identity)
        except torch.OutOfMemoryError as error:
            hint = "give each worker more of a GPU (--gpus-per-worker)"
            problem = f"the GPU's memory does not suffice ({str(error).partition('. ')[0]})"
            return Reply(error=ResourceError(problem, where=order.job.checkpoint.folder, hint=hint))
        except MagicError as error:
            return Reply(error=error)

    def _finish(
        self, scorer: Scorer, model: CausalLM, job: ScoreJob, units: Sequence[range], parts: Parts, identity: str
    ) -> Reply:
        """The score file from the parts; what has no part is scored now."""
        sums = np.zeros(scorer.plan.num_sequences, np.float64)
        now = whole = NOTHING
        for unit in units:
            part = parts.read(unit)
            values, counts = part or _score(scorer, model, job, unit)
            sums[scorer.sequences(unit)] = values
            whole += counts
            now += NOTHING if part else counts
        settled = self._settle(scorer, model, job, sums)
        _check_finite(sums, job, "fp32")  # only what was settled is new
        path = job.checkpoint.score_file
        table = score_table(scorer.plan, job.checkpoint, sums, job.precision)
        with naming_disk_errors(path):
            write_scores(table, path)
        remove_parts(path)
        return Reply(identity, counts=now + settled, whole=whole + settled)

    def _settle(self, scorer: Scorer, model: CausalLM, job: ScoreJob, sums: Sums) -> ForwardCounts:
        """Near-ties in fp32; other precisions need a model of their own for it."""
        if job.precision == "fp32":
            return scorer.settle(model, sums)
        if not len(near_ties(scorer.plan, sums)[0]):
            return NOTHING
        return scorer.settle(job.checkpoint.load(torch.float32, self._devices, self._weights), sums)

    # ------------------------------------------------------------------------------------------ what is kept

    def _load(self, job: ScoreJob) -> CausalLM:
        """The job's model; the one that is here, with other weights, where it fits."""
        if self._loaded == job:
            assert self._model is not None
            return self._model
        # Before anything is read: a load that fails half-way leaves a model that belongs to no checkpoint.
        self._loaded = self._weights = None
        weights = self._read(job)
        dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[job.precision]
        model = self._model
        if weights is not None and isinstance(model, Llama) and model.fits(job.checkpoint.folder, dtype):
            model.load(weights)
        else:
            self._model = model = None  # its memory is needed
            self._model = model = job.checkpoint.load(dtype, self._devices, weights)
            if self._device == "cuda":
                print(f"attention: {model.forms[0][0]} ({model.forms[1]})", flush=True)
        self._loaded = job
        self._weights = weights if job.precision != "fp32" else None  # for near-ties
        return model

    def _read(self, job: ScoreJob) -> Weights | None:
        if self._coming is None or self._coming[0] != job:
            return job.checkpoint.read()
        future, self._coming = self._coming[1], None
        return future.result()

    def _read_ahead(self, job: ScoreJob | None) -> None:
        if job is None:
            self._coming = None
        elif self._coming is None or self._coming[0] != job:
            self._coming = job, self._reader.submit(job.checkpoint.read)

    def _scorer(self, plan: Plan, model: CausalLM, form: Form) -> Scorer:
        key = plan.hash, model.shares_prefixes, form, model.places_at_once
        scorer = self._scorers.pop(key, None)
        if scorer is None:
            asked = plan if model.shares_prefixes else plan.unshared()
            scorer = Scorer(asked, self._device, form, model.places_at_once)
        self._scorers[key] = scorer  # the last used is last
        if len(self._scorers) > PLANS_KEPT:
            self._scorers.pop(next(iter(self._scorers)))
        return scorer

    def _facts(self, scorer: Scorer, job: ScoreJob) -> dict[str, str]:
        metadata = score_metadata(scorer.plan, job.checkpoint, job.precision)
        return metadata | {"device": f"{self._device} x {len(self._devices)}", "layout": scorer.layout, "code": _code()}


def _score(scorer: Scorer, model: CausalLM, job: ScoreJob, unit: range) -> tuple[Sums, ForwardCounts]:
    """`Scorer.score`. Raises ArtifactError where a log-probability is not finite."""
    sums, counts = scorer.score(model, unit)
    _check_finite(sums, job, job.precision)
    return sums, counts


def _check_finite(sums: Sums, job: ScoreJob, precision: str) -> None:
    """A candidate of probability 0 (-inf) is refused like NaN: no mean, margin or calibration is defined with it."""
    if wrong := int((~np.isfinite(sums)).sum()):
        problem = f"{wrong} of {len(sums)} log-probabilities are NaN or infinite in {precision}; none is written"
        raise ArtifactError(problem, where=job.checkpoint.folder, hint=WIDER[precision])


@functools.cache
def _code() -> str:
    """A hash of the code that computes: parts of an interrupted run are not continued by another version."""
    return code_sha256(
        "ray_eval/models", "ray_eval/plans", "ray_eval/workers", "ray_eval/checkpoints", "configs/llama.py"
    )
