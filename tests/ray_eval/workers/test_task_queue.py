"""The schedule: whatever workers come, die and answer in whatever order, every unit is done and every job ends once."""

from __future__ import annotations

from collections import Counter, deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ray_eval.workers.task_queue import DEATHS, TASKS_GIVEN, Queue, Task


class Cluster:
    """Workers that do what a queue gives them; an independent record of what was done."""

    def __init__(self, sizes: list[int], done_before: list[set[int]], workers: int) -> None:
        self.units = [[range(i, i + 1) for i in range(size)] for size in sizes]
        self.scored = [{self.units[job][i] for i in before} for job, before in enumerate(done_before)]
        self.queue = Queue(len(sizes))
        self.given: dict[int, deque[Task]] = {}
        for number in range(workers):
            self.join(number)
        self.opened: Counter[int] = Counter()
        self.finished: Counter[int] = Counter()
        self.failed: set[int] = set()
        self.tasks: list[Task] = []
        self.fill()

    def join(self, worker: int) -> None:
        self.given[worker] = deque()
        self.queue.join(worker)

    def fill(self, first: int | None = None) -> None:
        for worker, task in self.queue.deal(first):
            self.given[worker].append(task)
            assert len(self.given[worker]) <= TASKS_GIVEN
            coming = self.queue.coming(worker)
            assert coming is None or (not self.opened[coming] and coming not in self.failed)
        self.check_nobody_waits_for_nothing()

    def check_nobody_waits_for_nothing(self) -> None:
        """A worker without a task means that no unit is left which it could score."""
        out = [task for tasks in self.given.values() for task in tasks]
        if all(self.given.values()):
            return
        for job, units in enumerate(self.units):
            if self.finished[job] or job in self.failed:
                continue
            assert any(task.job == job for task in out)
            if self.opened[job] and len(units) > 1:
                waiting = set(units) - self.scored[job] - {task.unit for task in out if task.job == job}
                assert not waiting

    def answer(self, worker: int) -> None:
        """The worker does the oldest of its tasks."""
        task = self.given[worker].popleft()
        self.tasks.append(task)
        units = self.units[task.job]
        if task.kind == "open":
            self.opened[task.job] += 1
            self.queue.opened(worker, units, [unit for unit in units if unit not in self.scored[task.job]])
        elif task.kind == "score":
            assert task.unit is not None
            self.scored[task.job].add(task.unit)
            assert not self.queue.done(worker)
        else:
            if len(units) == 1:
                self.scored[task.job].add(units[0])
            assert self.scored[task.job] == set(units)
            assert self.queue.done(worker) == (task.job not in self.failed)
            self.finished[task.job] += task.job not in self.failed

    def die(self, worker: int, replacement: int) -> Task | None:
        del self.given[worker]
        lost = self.queue.leave(worker, died=True)
        self.join(replacement)
        if lost:
            self.failed.add(lost.job)
        return lost

    @property
    def busy(self) -> list[int]:
        return [worker for worker, tasks in self.given.items() if tasks]


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    sizes = draw(st.lists(st.integers(1, 8), min_size=1, max_size=6))
    before = [draw(st.sets(st.integers(0, size - 1))) for size in sizes]
    return Cluster(sizes, before, draw(st.integers(1, 5)))


@settings(max_examples=200, deadline=None)
@given(cluster=clusters(), data=st.data())
def test_every_unit_is_done_and_every_job_ends_once(cluster: Cluster, data: st.DataObject) -> None:
    deaths = data.draw(st.integers(0, 12))
    replacement = 100
    while not cluster.queue.over:
        assert cluster.busy, "work is left and nobody has any"
        worker = data.draw(st.sampled_from(cluster.busy))
        if deaths and data.draw(st.booleans()):
            deaths, replacement = deaths - 1, replacement + 1
            cluster.die(worker, replacement)
        else:
            cluster.answer(worker)
        cluster.fill(worker if worker in cluster.given else None)
        assert bool(cluster.queue.width) != cluster.queue.over
    for job in range(len(cluster.units)):
        assert cluster.finished[job] == (job not in cluster.failed)


@settings(max_examples=100, deadline=None)
@given(cluster=clusters(), data=st.data())
def test_without_deaths_no_unit_is_scored_twice(cluster: Cluster, data: st.DataObject) -> None:
    expected = {
        (job, unit)
        for job, units in enumerate(cluster.units)
        for unit in units
        if len(units) > 1 and unit not in cluster.scored[job]
    }
    while not cluster.queue.over:
        cluster.answer(data.draw(st.sampled_from(cluster.busy)))
        cluster.fill()
    scored = Counter((task.job, task.unit) for task in cluster.tasks if task.kind == "score")
    assert scored == Counter(expected) and set(cluster.finished.values()) == {1}
    ones = sum(len(units) == 1 for units in cluster.units)
    assert cluster.queue.units_done == len(expected) + ones and cluster.queue.units_left == 0


def test_a_worker_keeps_its_checkpoint_and_then_takes_the_next() -> None:
    cluster = Cluster([3, 2, 1], [set(), set(), set()], workers=1)
    while not cluster.queue.over:
        cluster.answer(0)
        cluster.fill()
    kinds = [(task.kind, task.job) for task in cluster.tasks]
    first, second, third = [("open", 0), *[("score", 0)] * 3], [("open", 1), *[("score", 1)] * 2], [("open", 2)]
    assert kinds == [*first, ("finish", 0), *second, ("finish", 1), *third, ("finish", 2)]


def test_workers_that_run_out_help_with_the_job_that_has_most_left() -> None:
    cluster = Cluster([1, 9, 3], [set(), set(), set()], workers=3)
    for worker in range(3):  # each opens one
        cluster.answer(worker)
    cluster.fill()
    cluster.answer(0)  # the job of one unit is finished
    cluster.fill()
    assert {task.job for task in cluster.given[0]} == {1} and len(cluster.given[0]) == TASKS_GIVEN


def test_who_holds_the_weights_is_served_first_and_finishes() -> None:
    cluster = Cluster([1, 3], [set(), set()], workers=2)
    for _ in range(2):
        cluster.answer(0)
        cluster.fill(0)
    assert [task.kind for task in cluster.tasks] == ["open", "finish"] and [*cluster.given[0]] == [Task("open", 1)]
    cluster.answer(1)
    cluster.fill(1)
    assert [task.unit for task in cluster.given[1]] == [range(1), range(1, 2)]
    cluster.answer(0)
    cluster.fill(0)
    cluster.answer(0)
    cluster.fill(0)
    assert not cluster.given[0]  # it has done the third unit, and leaves the end to the one that has not
    cluster.answer(1)
    cluster.fill(0)
    assert [task.kind for task in cluster.given[1]] == ["score", "finish"]


def test_a_unit_that_costs_three_workers_is_given_up_and_the_rest_is_done() -> None:
    cluster = Cluster([1, 4, 2], [set(), set(), set()], workers=1)
    poison = Task("score", 1, range(2, 3))
    lost, worker = [], 0
    while not cluster.queue.over:
        if cluster.given[worker][0] == poison:
            lost.append(cluster.die(worker, worker + 1))
            worker += 1
        else:
            cluster.answer(worker)
        cluster.fill()
    assert lost == [None] * (DEATHS - 1) + [poison]
    assert cluster.finished == {0: 1, 2: 1} and cluster.failed == {1}


def test_a_failed_checkpoint_ends_once_and_takes_its_units_along() -> None:
    cluster = Cluster([8], [set()], workers=3)
    cluster.answer(0)
    cluster.fill()
    assert all(cluster.given.values())
    assert cluster.queue.failed(1) and not cluster.queue.failed(2)
    assert cluster.queue.over and not list(cluster.queue.deal())


def test_workers_prepare_for_different_checkpoints() -> None:
    cluster = Cluster([4, 4, 4, 4], [set()] * 4, workers=2)
    opened = {cluster.given[0][0].job, cluster.given[1][0].job}
    assert opened | {cluster.queue.coming(0), cluster.queue.coming(1)} == {0, 1, 2, 3}
    cluster.answer(0)
    cluster.fill()
    prepared = cluster.queue.coming(0)
    for _ in range(4):
        cluster.answer(0)
        cluster.fill()
    assert cluster.tasks[-1].kind == "score" and Task("open", prepared or 0) in cluster.given[0]


def test_those_with_nothing_to_do_open_what_another_opens() -> None:
    cluster = Cluster([6], [set()], workers=3)
    assert [tasks[0] for tasks in cluster.given.values()] == [Task("open", 0)] * 3
    cluster.answer(1)
    cluster.fill()
    assert [task.kind for task in cluster.given[1]] == ["score", "score"] and cluster.queue.width == 6
    cluster.answer(0)  # opened a second time: nothing changes
    cluster.fill()
    assert [task.unit for task in cluster.given[0]] == [range(2, 3), range(3, 4)]


def test_a_worker_that_leaves_alive_is_not_blamed() -> None:
    queue = Queue(1)
    for worker in range(2 * DEATHS):
        queue.join(worker)
        assert list(queue.deal()) == [(worker, Task("open", 0))]
        assert queue.leave(worker, died=False) is None
    assert not queue.over


@pytest.mark.parametrize("jobs", [1, 3])
def test_jobs_of_one_unit_take_two_tasks(jobs: int) -> None:
    cluster = Cluster([1] * jobs, [set()] * jobs, workers=1)
    while not cluster.queue.over:
        cluster.answer(0)
        cluster.fill()
    assert [task.kind for task in cluster.tasks] == ["open", "finish"] * jobs
