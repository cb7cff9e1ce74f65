"""Who does what next: pure scheduling, without Ray, clocks or files.

A job is a checkpoint. It is opened (its weights are loaded, which tells its units and which of them are still to be
scored), its units are scored, and it is finished (the units' results become one score file):

    open  ->  score, score, ...  ->  finish          a job of one unit:  open  ->  finish, which scores it

Workers pull. Each has up to two tasks, done in the order they were given, so that it never waits for an answer. A
worker stays with its job until all of the job's units are given out, then opens the next job, and where none is left
it helps with the job that has most left. Nothing is lost with a worker: what it was given is given again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

TASKS_GIVEN = 2
"""One in work and one waiting."""
DEATHS = 3
"""Workers that one task may cost before its job is given up."""


@dataclass(frozen=True)
class Task:
    kind: Literal["open", "score", "finish"]
    job: int
    unit: range | None = None
    """What to score."""


@dataclass
class _Job:
    units: Sequence[range] | None = None
    """None: not opened yet."""
    todo: deque[range] = field(default_factory=deque)
    """To be given out."""
    opening: int = 0
    """Workers that were given its opening."""
    scoring: Counter[int] = field(default_factory=Counter)
    """Units that were given out, by worker."""
    finishing: bool = False
    over: bool = False

    @property
    def unopened(self) -> bool:
        return self.units is None and not self.over

    @property
    def units_left(self) -> int:
        if self.over or self.units is None:
            return 0
        return 1 if len(self.units) == 1 else len(self.todo) + self.scoring.total()

    def finishable(self, worker: int) -> bool:
        """Will all units be done once the worker has done what it was given?"""
        ready = not (self.over or self.finishing or self.units is None or self.todo)
        return ready and self.scoring.total() == self.scoring[worker]

    def account(self, task: Task, worker: int, given: int) -> None:
        """A task is given (1) or no longer given (-1) to the worker."""
        if task.kind == "open":
            self.opening += given
        elif task.kind == "score":
            self.scoring[worker] += given
        else:
            self.finishing = given > 0


class Queue:
    """Tasks of jobs 0 .. num_jobs - 1 for workers that come and go."""

    def __init__(self, num_jobs: int) -> None:
        self._jobs = [_Job() for _ in range(num_jobs)]
        self._given: dict[int, deque[Task]] = {}
        self._current: dict[int, int] = {}  # the job of the last task that a worker was given
        self._coming: dict[int, int] = {}  # the job that a worker was told to prepare for
        self._deaths: Counter[Task] = Counter()
        self.units_done = 0
        """Scored since this queue was made."""

    # ------------------------------------------------------------------------------------------ for workers

    def join(self, worker: int) -> None:
        """Give tasks to this worker from now on."""
        self._given[worker] = deque()

    def deal(self, first: int | None = None) -> Iterator[tuple[int, Task]]:
        """Give every worker what it may have, one task a round; first: the worker that is served before the others."""
        workers = sorted(self._given, key=lambda worker: worker != first)
        for worker in workers * TASKS_GIVEN:
            task = self._next(worker)
            if task is not None:
                yield worker, task

    def coming(self, worker: int) -> int | None:
        """The job that the worker will probably open next; None: no unopened job is left."""
        job = self._next_unopened(worker)
        if job is not None:
            self._coming[worker] = job
        return job

    def opened(self, worker: int, units: Sequence[range], missing: Sequence[range]) -> None:
        """The worker's oldest task, an opening, is done. missing: the units still to be scored."""
        job = self._jobs[self._take_back(worker).job]
        if job.unopened:
            job.units = units
            job.todo.extend(missing if len(units) > 1 else ())

    def done(self, worker: int) -> bool:
        """The worker's oldest task, of another kind, is done. True: this finished the job."""
        task = self._take_back(worker)
        job = self._jobs[task.job]
        if job.over:
            return False
        self.units_done += task.kind == "score" or job.units_left
        job.over = task.kind == "finish"
        return job.over

    def failed(self, worker: int) -> bool:
        """The worker's oldest task cannot be done. True: this ended the job."""
        return self._give_up(self._take_back(worker).job)

    def leave(self, worker: int, *, died: bool) -> Task | None:
        """The worker is gone, and what it was given is given out again.

        died: the task it was at is to blame, and the third time its job is given up; then that task is returned.
        """
        given = [self._take_back(worker) for _ in list(self._given[worker])]
        del self._given[worker]
        self._current.pop(worker, None)
        self._coming.pop(worker, None)
        # In front and in the old order: the next worker goes on where this one was.
        for task in reversed(given):
            if task.unit is not None and not self._jobs[task.job].over:
                self._jobs[task.job].todo.appendleft(task.unit)
        if not given or not died:
            return None
        blamed = given[0]
        self._deaths[blamed] += 1
        return blamed if self._deaths[blamed] >= DEATHS and self._give_up(blamed.job) else None

    # ------------------------------------------------------------------------------------------ how it stands

    @property
    def over(self) -> bool:
        return all(job.over for job in self._jobs)

    @property
    def width(self) -> int:
        """How many workers could have something to do."""
        return sum(max(1, job.units_left) for job in self._jobs if not job.over)

    @property
    def units_left(self) -> float:
        """Units to score; a job that was not opened counts as the mean of the others."""
        opened = [len(job.units) for job in self._jobs if job.units is not None]
        mean = sum(opened) / len(opened) if opened else 1.0
        return sum(mean if job.unopened else job.units_left for job in self._jobs)

    # ------------------------------------------------------------------------------------------ choices

    def _next(self, worker: int) -> Task | None:
        """The next task of a worker; None where it has enough, or there is nothing for it (yet)."""
        given = self._given[worker]
        opening = given and given[-1].kind == "open"  # what follows it is not known yet
        if opening or len(given) >= TASKS_GIVEN:
            return None
        task = self._choose(worker)
        if task is not None:
            if task.kind == "score":
                self._jobs[task.job].todo.popleft()
            given.append(task)
            self._jobs[task.job].account(task, worker, 1)
            self._current[worker] = task.job
        return task

    def _choose(self, worker: int) -> Task | None:
        # A worker's own job first: it has the weights in memory, and loading others costs more than a unit.
        mine = self._current.get(worker)
        order = list(range(len(self._jobs)))
        if mine is not None:
            order.insert(0, mine)
            if self._jobs[mine].todo:
                return self._score(mine)
        held = {number for other, number in self._current.items() if other != worker}
        for number in order:  # who has its weights finishes a job
            if self._jobs[number].finishable(worker) and (number == mine or number not in held):
                return Task("finish", number)
        if (unopened := self._next_unopened(worker)) is not None:
            return Task("open", unopened)
        most = max(order, key=lambda number: len(self._jobs[number].todo))
        if self._jobs[most].todo:
            return self._score(most)
        # Others are opening the last jobs; whoever has opened one too can help with it at once.
        shared = [number for number in order if self._jobs[number].unopened]
        if shared and not self._given[worker]:
            return Task("open", min(shared, key=lambda number: self._jobs[number].opening))
        return None

    def _score(self, number: int) -> Task:
        return Task("score", number, self._jobs[number].todo[0])

    def _next_unopened(self, worker: int) -> int | None:
        """The job to open next: what the worker was told, else one that no other was told, else any."""
        free = [number for number, job in enumerate(self._jobs) if job.unopened and not job.opening]
        if self._coming.get(worker) in free:
            return self._coming[worker]
        reserved = {number for other, number in self._coming.items() if other != worker}
        return next((number for number in free if number not in reserved), free[0] if free else None)

    def _take_back(self, worker: int) -> Task:
        """The worker's oldest task, which it no longer has."""
        task = self._given[worker].popleft()
        self._jobs[task.job].account(task, worker, -1)
        return task

    def _give_up(self, number: int) -> bool:
        job = self._jobs[number]
        first = not job.over
        job.over = True
        job.todo.clear()
        return first
