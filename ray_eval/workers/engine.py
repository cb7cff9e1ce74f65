"""The work of a call on workers: on actors of a Ray cluster, or on one in this process.

In: plans and the checkpoints to score on each. Out: score files, and a step for every unit done. What a task writes is
complete or not there at all, so doing it twice changes nothing, and any worker may be lost at any time. Ray does not
restart actors: the driver asks for new ones itself and gives work only to those that have answered, so that a lost
machine, whose actors can be placed nowhere, does not hold up the others.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from configs.errors import ArtifactError, ConfigError, MagicError, ResourceError
from ray_eval.models.forward_counts import NOTHING, ForwardCounts
from ray_eval.plans.plan import Plan
from ray_eval.workers.task_queue import DEATHS, Queue
from ray_eval.workers.worker import Order, Reply, ScoreJob, Worker

FAILED_STARTS = 3
"""For each worker there is room for: actors in a row that die before they answer, until no more are asked for."""
PATIENCE_S = 60.0
"""Without any worker, until a line says what is waited for."""


@dataclass(frozen=True)
class Step:
    """A unit or a whole checkpoint is done, or a checkpoint has failed."""

    job: ScoreJob
    least_tokens: int
    """The plan's `least_tokens`."""
    units_done: int
    """Units of all jobs that this call has done."""
    units_left: float
    finished: bool = False
    """The job's score file is there."""
    num_examples: float = 0.0
    """Scored in this step."""
    counts: ForwardCounts = NOTHING
    """Computed in this step."""
    whole: ForwardCounts = NOTHING
    """If finished: what the whole job took."""
    error: MagicError | None = None


class Workload:
    """The jobs of a call, and how they stand."""

    def __init__(self, groups: Sequence[tuple[Plan, Sequence[ScoreJob]]]) -> None:
        self.plans = [plan for plan, _ in groups]
        self.jobs = [job for _, jobs in groups for job in jobs]
        self.plan_of = [number for number, (_, jobs) in enumerate(groups) for _ in jobs]
        self.queue = Queue(len(self.jobs))
        self._identities: dict[int, str] = {}
        self._units: dict[int, int] = {}

    def deal(self, first: int | None = None) -> Iterator[tuple[int, int, Order]]:
        """What is to be done now: worker, number of the plan, order. first: as `Queue.deal`."""
        for worker, task in self.queue.deal(first):
            coming = self.queue.coming(worker)
            ahead = None if coming is None else self.jobs[coming]
            yield (
                worker,
                self.plan_of[task.job],
                Order(task, self.jobs[task.job], self._identities.get(task.job), ahead),
            )

    def fits(self, order: Order, reply: Reply) -> bool:
        """False: the worker computes on other terms (device, versions, code) than whoever opened the job."""
        return bool(reply.error) or self._identities.setdefault(order.task.job, reply.identity) == reply.identity

    def done(self, worker: int, order: Order, reply: Reply) -> Step | None:
        """Raises the error of the machine that stops everybody."""
        number = order.task.job
        if isinstance(reply.error, ResourceError):
            raise reply.error
        if reply.error is not None:
            return replace(self._stands(number), error=reply.error) if self.queue.failed(worker) else None
        if order.task.kind == "open":
            # Only who opened the job knows its units: they depend on the model's shape and on parts left on disk.
            self.queue.opened(worker, reply.units, reply.missing)
            self._units[number] = len(reply.units)
            return None
        # A job of one unit is scored by its finish; in others the finish scores nothing new.
        units = self._units[number]
        finished = self.queue.done(worker)
        scored = self.plans[self.plan_of[number]].num_examples / units if order.task.unit or units == 1 else 0.0
        return replace(
            self._stands(number), finished=finished, num_examples=scored, counts=reply.counts, whole=reply.whole
        )

    def left(self, worker: int, reason: str) -> Step | None:
        """The worker died."""
        task = self.queue.leave(worker, died=True)
        if task is None:
            return None
        what = f"{task.kind} of batches {task.unit.start} to {task.unit.stop - 1}" if task.unit else task.kind
        error = ArtifactError(
            f"given up: {DEATHS} workers died over it ({what}), the last with: {reason}",
            where=self.jobs[task.job].checkpoint.folder,
            hint="if memory ran out (`dmesg`), fewer --workers need less of it; what was scored is kept",
        )
        return replace(self._stands(task.job), error=error)

    def _stands(self, number: int) -> Step:
        """How far all jobs are, for a step of this one."""
        least_tokens = self.plans[self.plan_of[number]].least_tokens
        return Step(self.jobs[number], least_tokens, self.queue.units_done, self.queue.units_left)


def gpus_to_share(gpus_per_worker: float) -> int:
    """How many GPUs hold one model. Raises ConfigError for what is neither a part of one nor a whole number."""
    if not (0 < gpus_per_worker <= 1 or gpus_per_worker == int(gpus_per_worker) > 1):
        raise ConfigError(f"{gpus_per_worker:g} GPUs for a worker", valid="a part of one, or 1, 2, 3, ...")
    return math.ceil(gpus_per_worker)


def score_here(work: Workload, worker: Worker) -> Iterator[Step]:
    """One task after another in this process."""
    work.queue.join(0)
    waiting: deque[tuple[int, int, Order]] = deque()
    while not work.queue.over:
        waiting.extend(work.deal())
        _, plan, order = waiting.popleft()
        step = work.done(0, order, worker.do(work.plans[plan], order))
        if step:
            yield step


def score_on_ray(
    work: Workload,
    say: Callable[[str], None],
    *,
    num_workers: int | None = None,
    gpus_per_worker: float = 1.0,
    unit_work: float | None = None,
    worker: type[Worker] = Worker,
) -> Iterator[Step]:
    """Do the workload on actors of the connected cluster (`configs.runtime.cluster`).

    say: gets a line where something needs the user's attention.   num_workers: at most so many actors; None: as many as
    there is room for, one on a CPU.   unit_work: as `Scorer.units`.
    gpus_per_worker: a part of one, or a whole number, which then share each model.
    Raises ResourceError where there is no room for any, and for a machine that cannot go on (a full disk).
    """
    pool = _Pool(work, say, num_workers, gpus_per_worker, worker, unit_work)
    try:
        while not work.queue.over:
            pool.fill()
            step = pool.wait()
            if step:
                yield step
    finally:
        pool.end()


class _Pool:
    """Actors, those that were asked for and have not answered included."""

    def __init__(
        self,
        work: Workload,
        say: Callable[[str], None],
        num_workers: int | None,
        gpus_per_worker: float,
        worker: type[Worker],
        unit_work: float | None,
    ) -> None:
        import ray

        self._unit_work, self._num_gpus = unit_work, gpus_to_share(gpus_per_worker)
        total = ray.cluster_resources()
        if gpus_per_worker != 1 and not total.get("GPU"):
            problem = f"{gpus_per_worker:g} GPUs for a worker, and the Ray cluster has none"
            raise ResourceError(problem, hint="leave out --gpus-per-worker: one worker for each CPU")
        resource, each = ("GPU", gpus_per_worker) if total.get("GPU") else ("CPU", 1.0)
        room = int(total.get(resource, 0)) * int(1 / each) if each <= 1 else int(total[resource] / each)
        if not room:
            hint = "ray start --num-cpus N, or use --no-ray"
            raise ResourceError(f"the Ray cluster has no room for a worker ({each:g} {resource})", hint=hint)
        self._work, self._say = work, say
        self._limit = num_workers or room
        self._needs = f"{each:g} {resource}"
        options = {"num_gpus": each, "num_cpus": 0} if resource == "GPU" else {"num_cpus": 1}
        self._actor = ray.remote(worker).options(max_restarts=0, max_task_retries=0, **options)
        self._plans = [ray.put(plan) for plan in work.plans]  # travels to a machine once
        self._numbers = itertools.count()
        self._actors: dict[int, Any] = {}
        self._asked: dict[int, Any] = {}  # what an actor that has not answered yet was asked
        self._orders: dict[int, deque[tuple[Any, Order]]] = {}  # of the others; the oldest is in work
        self._starts_left = FAILED_STARTS * self._limit
        self._idle_since = time.monotonic()
        self._answered: int | None = None  # the last that did; it is served first, for it holds the weights

    def fill(self) -> None:
        """Start as many actors as there is work for, and give each as much as it may have."""
        while len(self._actors) < min(self._limit, self._work.queue.width) and self._starts_left:
            number = next(self._numbers)
            self._actors[number] = actor = self._actor.remote(self._unit_work, self._num_gpus)
            self._asked[number] = actor.host.remote()
        for number, plan, order in self._work.deal(first=self._answered):
            self._orders[number].append((self._actors[number].do.remote(self._plans[plan], order), order))

    def wait(self) -> Step | None:
        """Wait until an actor has answered or died, and return what that means."""
        import ray

        answers = {asked: number for number, asked in self._asked.items()}
        # Of each actor the oldest: it is answered first, and what comes of it must be known before its death is.
        answers |= {orders[0][0]: number for number, orders in self._orders.items() if orders}
        if not self._actors:
            raise ResourceError("no worker is left", hint="rerun: what was scored is kept")
        ready, _ = ray.wait(list(answers), num_returns=1, timeout=PATIENCE_S)
        if self._orders or ready:
            self._idle_since = time.monotonic()
        elif time.monotonic() - self._idle_since >= PATIENCE_S:
            self._say(f"waiting for a worker: none of {len(self._asked)} actors ({self._needs} each) has a place yet")
            self._idle_since = time.monotonic()
        if not ready:
            return None
        self._answered = number = answers[ready[0]]
        try:
            reply = ray.get(ready[0])
        except ray.exceptions.RayError as error:
            return self._died(number, error)
        if number in self._asked:
            del self._asked[number]
            self._orders[number] = deque()
            self._work.queue.join(number)
            self._starts_left = FAILED_STARTS * self._limit
            return None
        _, order = self._orders[number].popleft()
        if self._work.fits(order, reply):
            return self._work.done(number, order, reply)
        # Its numbers would differ in rounding from those of the parts that are there; nobody else may get its place.
        self._limit -= 1
        self._say("a worker is not used: its machine has another kind of device, or other versions or code")
        self._work.queue.leave(number, died=False)
        self._remove(number)
        return None

    def end(self) -> None:
        for number in list(self._actors):
            self._remove(number)

    def _died(self, number: int, error: Exception) -> Step | None:
        lines = [line for line in str(error).splitlines() if line.strip()]
        reason = lines[-1].strip().partition(" Some common causes")[0] if lines else type(error).__name__
        started = number in self._orders
        self._remove(number)
        if started:
            self._say(f"a worker died ({reason}); what it was given is given to others")
            return self._work.left(number, reason)
        self._starts_left -= 1
        if not self._starts_left and not self._actors:
            raise ResourceError(f"no worker starts; the last died with: {reason}", hint="look at the logs of Ray")
        return None

    def _remove(self, number: int) -> None:
        import ray

        self._asked.pop(number, None)
        self._orders.pop(number, None)
        ray.kill(self._actors.pop(number))  # it may be alive and only out of reach
