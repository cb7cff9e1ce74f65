"""The same work on many units (files of a source): in this process, in several, or on Ray.

In: a module-level function and its items. Out: (index of the item, result) in the order of completion. The work must
be idempotent: a unit whose process died is done again by the next run, and on Ray by the next worker.
"""

from __future__ import annotations

import itertools
import multiprocessing
import operator
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from configs.errors import ResourceError

T = TypeVar("T")
R = TypeVar("R")

OUTSTANDING = 2
"""Items given out for each worker: one in work, one waiting."""
RAY_RETRIES = 3


def map_units(
    work: Callable[[T], R], items: Iterable[T], *, workers: int | None = None, use_ray: bool = False
) -> Iterator[tuple[int, R]]:
    """Apply `work` to every item; at most `workers` at a time (None: one for each CPU).

    items: taken one by one as workers become free, so that results may decide which items are still to come. use_ray:
    on the connected cluster (`configs.runtime.cluster`), else in spawned processes; one worker without Ray is this
    process. A user error (MagicError) in a worker is raised here; ResourceError where a worker died.
    """
    if use_ray:
        return _on_ray(work, items, workers)
    workers = workers or os.cpu_count() or 1
    workers = min(workers, operator.length_hint(items, workers))
    if workers <= 1:
        return ((index, work(item)) for index, item in enumerate(items))
    return _in_processes(work, items, workers)


def _in_processes(work: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[tuple[int, R]]:
    # Spawned, not forked: the parent may hold Arrow's, Ray's or torch's threads.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _end_with_parent)
    pending = enumerate(items)
    running: dict[Future[R], int] = {}
    try:
        while True:
            for index, item in itertools.islice(pending, OUTSTANDING * workers - len(running)):
                running[pool.submit(work, item)] = index
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    except BrokenProcessPool:
        raise ResourceError(
            "a worker process died",
            hint="where memory ran out (see dmesg), fewer --workers need less; what is finished is kept: rerun",
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _end_with_parent() -> None:
    """End this worker when its parent ends: workers of a killed parent would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _on_ray(work: Callable[[T], R], items: Iterable[T], workers: int | None) -> Iterator[tuple[int, R]]:
    import ray

    available = int(ray.cluster_resources().get("CPU", 0))
    if not available:
        raise ResourceError("the Ray cluster has no CPU", hint="ray start --num-cpus N, or leave out --ray")
    task = ray.remote(work).options(num_cpus=1, max_retries=RAY_RETRIES)
    limit = workers or OUTSTANDING * available
    pending = enumerate(items)
    running: dict[Any, int] = {}
    try:
        while True:
            for index, item in itertools.islice(pending, limit - len(running)):
                running[task.remote(item)] = index
            if not running:
                return
            for reference in ray.wait(list(running))[0]:
                try:
                    result = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from None
                except ray.exceptions.RayError as error:
                    raise ResourceError(
                        f"a worker died and {RAY_RETRIES} retries did not help ({error})",
                        hint="where memory ran out (see dmesg), fewer --workers need less; rerun to go on",
                    ) from None
                yield running.pop(reference), result
    finally:
        for reference in running:
            ray.cancel(reference)


def batches_of(items: Iterable[T], size_of: Callable[[T], int], limit: int) -> Iterator[list[T]]:
    """Successive items in lists that each end with the item that reaches the size `limit`."""
    batch: list[T] = []
    size = 0
    for item in items:
        batch.append(item)
        size += size_of(item)
        if size >= limit:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
