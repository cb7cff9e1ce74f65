"""Workers of a Ray cluster: a task for each unit, wherever its GPUs or CPU are free.

In: how to do a unit. Out: a future of its product. Runs, data and documents must lie where all machines see them.
Ray reuses the processes of its tasks, so that they too import their packages once. A unit of more GPUs than a machine
has is a torchrun on each of several machines, in a placement group that takes their GPUs together or not at all. A unit
that names GPUs waits for them: it takes a CPU only on a cluster that never had one, and only if its model is fp32.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import ray
from ray.exceptions import RayTaskError
from ray.util import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from configs.errors import MagicError
from configs.workflow.schedule import machines_for
from configs.workflow.units import Unit
from configs.workflow.workers.dispatch import WorkerDied
from configs.workflow.workers.processes import SAVE_S, Command, run_command

PATIENCE_S = 600.0
"""How long a unit waits for machines to come (back), while no other is at work."""
LOOK_AGAIN_S = 1.0
"""How old the list of machines may be."""


@dataclass(frozen=True)
class Share:
    """What one unit takes of a cluster."""

    gpus: int
    cpus: int
    machines: int = 1


class RayWorkers:
    """Workers on the connected cluster; units of several GPUs are commands (torchrun)."""

    def __init__(
        self,
        do: Callable[[Unit], str],
        command: Command,
        outcome: Callable[[Unit, int], str],
        patience_s: float = PATIENCE_S,
    ) -> None:
        """do: picklable; as in `local.LocalWorkers`."""
        self._do, self._command, self._outcome = do, command, outcome
        self.patience_s = patience_s
        self._machines: list[tuple[int, int]] = []
        self._most_seen = 0
        self._warned = False
        self._looked = -LOOK_AGAIN_S
        self._taken: dict[str, Share] = {}
        self._tasks: dict[str, Any] = {}
        self._gangs = ThreadPoolExecutor(64, "gang")
        self._ending = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> RayWorkers:
        self._watcher.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """What is at work is asked to end; a training then saves where it is."""
        self._ending.set()
        _end(list(self._tasks.values()))
        self._gangs.shutdown(wait=True)
        self._watcher.join()

    def room(self, unit: Unit) -> bool:
        """Ray itself keeps to what is free; this keeps its queue short, so that the most urgent unit is next."""
        share, machines = self._share(unit), self._alive()
        gpus = sum(taken.gpus for taken in self._taken.values())
        cpus = sum(taken.cpus for taken in self._taken.values())
        fit = sum(have >= share.gpus // share.machines for have, _ in machines)
        return (
            gpus + share.gpus <= sum(have for have, _ in machines)
            and cpus + share.cpus <= sum(have for _, have in machines)
            and fit >= share.machines
        )

    def start(self, unit: Unit) -> Future[str]:
        share = self._taken[unit.name] = self._share(unit)
        if unit.gpus and not share.gpus and not self._warned:
            print(f"the cluster has no GPU: models of precision: fp32 take CPUs, {unit.name} first", flush=True)
            self._warned = True
        options: dict[str, Any] = {"num_gpus": share.gpus, "num_cpus": share.cpus, "max_retries": 0, "name": unit.name}
        if share.machines > 1:
            inner: Future[Any] = self._gangs.submit(self._together, unit, share)
        else:
            if share.gpus > 1:
                command = self._command(unit, ["--standalone", "--nproc-per-node", str(share.gpus)])
                task = ray.remote(run_command).options(**options).remote(command)
            else:
                task = ray.remote(_call).options(**options).remote(self._do, unit)
            self._tasks[unit.name], inner = task, task.future()
        outer: Future[str] = Future()

        def ended(inner: Future[Any]) -> None:
            self._taken.pop(unit.name)
            self._tasks.pop(unit.name, None)
            try:
                found = inner.result()
                outer.set_result(self._outcome(unit, found) if isinstance(found, int) else found)
            except Exception as error:
                outer.set_exception(_translated(error, unit))

        inner.add_done_callback(ended)
        return outer

    def _alive(self) -> list[tuple[int, int]]:
        """(GPUs, CPUs) of each machine."""
        if time.monotonic() - self._looked >= LOOK_AGAIN_S:
            resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            self._machines = [(int(found.get("GPU", 0)), int(found.get("CPU", 0))) for found in resources]
            self._most_seen = max(self._most_seen, _most_gpus(self._machines))
            self._looked = time.monotonic()
        return self._machines

    def _watch(self) -> None:
        """What a machine was to do that went before it began would wait in Ray for ever; it is to wait here."""
        while not self._ending.wait(LOOK_AGAIN_S):
            most = _most_gpus(self._alive())
            for name, task in list(self._tasks.items()):
                share = self._taken.get(name)
                if share is not None and share.gpus > most:
                    ray.cancel(task)

    def _share(self, unit: Unit) -> Share:
        """The share of the cluster that a unit takes.

        A unit without GPUs takes a CPU; only tokenizing does not, whose own tasks take CPUs.
        """
        cpus = 0 if unit.kind == "tokenize" else 1
        most = _most_gpus(self._alive()) or self._most_seen
        needed = unit.run is not None and unit.run.config.precision == "bf16"
        if not unit.gpus or not (most or needed):
            return Share(0, cpus)
        machines = machines_for(unit.gpus, most or unit.gpus)
        return Share(unit.gpus, cpus * machines, machines)

    def _together(self, unit: Unit, share: Share) -> int:
        """A torchrun on each of several machines: its exit code; where one ends badly, the others are ended too."""
        here = share.gpus // share.machines
        group = placement_group([{"GPU": here, "CPU": 1}] * share.machines, strategy="STRICT_SPREAD")
        at = [PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=i) for i in range(share.machines)]
        pending: list[Any] = []
        try:
            deadline = time.monotonic() + self.patience_s
            while not group.wait(LOOK_AGAIN_S):
                if time.monotonic() > deadline or self._ending.is_set():
                    raise WorkerDied(f"{share.machines} machines with {here} GPUs each did not become free together")
            place = ray.remote(_meeting_place).options(num_cpus=0, scheduling_strategy=at[0], max_retries=0).remote()
            address, port = ray.get(place)
            meet = ["--nnodes", str(share.machines), "--nproc-per-node", str(here)]
            meet += ["--master-addr", address, "--master-port", str(port)]
            for rank, strategy in enumerate(at):
                options = {"num_gpus": here, "num_cpus": 1, "max_retries": 0, "name": f"{unit.name} on machine {rank}"}
                command = self._command(unit, [*meet, "--node-rank", str(rank)])
                task = ray.remote(run_command).options(scheduling_strategy=strategy, **options)
                pending.append(task.remote(command))
            code = 0
            while pending and not code:
                done, pending = ray.wait(pending, timeout=LOOK_AGAIN_S)
                code = next(iter(ray.get(done)), 0)
                if self._ending.is_set():
                    raise WorkerDied(f"the driver was asked to end while {unit.name} was at work")
            return code
        finally:
            _end(pending)
            remove_placement_group(group)


def _most_gpus(machines: list[tuple[int, int]]) -> int:
    return max((gpus for gpus, _ in machines), default=0)


def _end(tasks: list[Any]) -> None:
    """Ask them to end, and wait for what they save."""
    with contextlib.suppress(Exception):  # a machine has gone, or the cluster
        for task in tasks:
            ray.cancel(task)
        if tasks:
            ray.wait(tasks, num_returns=len(tasks), timeout=SAVE_S)


def _call(do: Callable[[Unit], str], unit: Unit) -> str:
    return do(unit)


def _meeting_place() -> tuple[str, int]:
    """(address of this machine, a port that is free here)."""
    with socket.socket() as found:
        found.bind(("", 0))
        return ray.util.get_node_ip_address(), found.getsockname()[1]


def _translated(error: BaseException, unit: Unit) -> BaseException:
    """What the unit itself raised; anything else is the cluster's doing."""
    if isinstance(error, RayTaskError):
        return error.cause if isinstance(error.cause, Exception) else error
    if isinstance(error, (WorkerDied, MagicError)):
        return error
    return WorkerDied(f"{unit.name}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
