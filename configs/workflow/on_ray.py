"""Workers of a Ray cluster: a task for each unit, wherever its GPUs or CPU are free.

In: how to do a unit. Out: a future of its product. Runs, data and documents must lie where all machines see them.
Ray reuses the processes of its tasks, so that they too import their packages once.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from configs.workflow.dispatch import WorkerDied
from configs.workflow.units import Unit


class RayWorkers:
    """On the cluster that is connected; units of several GPUs are commands (torchrun) on one machine."""

    def __init__(
        self, do: Callable[[Unit], str], command: Callable[[Unit], list[str]], product: Callable[[Unit], str]
    ) -> None:
        """do, command, product: picklable; as in `local.LocalWorkers`."""
        import ray

        total = ray.cluster_resources()
        self._do, self._command, self._product = do, command, product
        self._gpus, self._cpus = int(total.get("GPU", 0)), int(total.get("CPU", 1))
        self._taken: dict[str, tuple[int, int]] = {}
        """Unit -> (GPUs, CPUs)."""

    def room(self, unit: Unit) -> bool:
        """Ray itself keeps to what is free; this keeps its queue short, so that the most urgent unit is next."""
        gpus, cpus = (sum(counts) for counts in zip((0, 0), *self._taken.values(), strict=True))
        needed = self._needs(unit)
        return gpus + needed[0] <= self._gpus and cpus + needed[1] <= self._cpus

    def start(self, unit: Unit) -> Future[str]:
        import ray

        gpus, cpus = self._taken[unit.name] = self._needs(unit)
        options: dict[str, Any] = {"num_gpus": gpus, "num_cpus": cpus, "max_retries": 0, "name": unit.name}
        if gpus > 1:
            reference = ray.remote(_run_command).options(**options).remote(self._command(unit), self._product, unit)
        else:
            reference = ray.remote(_call).options(**options).remote(self._do, unit)
        outer: Future[str] = Future()

        def ended(inner: Future[Any]) -> None:
            self._taken.pop(unit.name)
            error = inner.exception()
            if error is None:
                outer.set_result(inner.result())
            else:
                outer.set_exception(_translated(error, unit))

        reference.future().add_done_callback(ended)
        return outer

    def _needs(self, unit: Unit) -> tuple[int, int]:
        """(GPUs, CPUs) on this cluster. Without GPUs a unit takes a CPU; tokenising has tasks of its own that do."""
        return unit.gpus if self._gpus else 0, 0 if unit.kind == "tokenise" else 1


def _call(do: Callable[[Unit], str], unit: Unit) -> str:
    return do(unit)


def _run_command(command: list[str], product: Callable[[Unit], str], unit: Unit) -> str:
    import subprocess

    done = subprocess.run(command, check=False)
    if done.returncode:
        raise WorkerDied(f"{unit.name} ended with exit code {done.returncode}; its log says why")
    return product(unit)


def _translated(error: BaseException, unit: Unit) -> BaseException:
    """What the unit itself raised; anything else is the cluster's doing."""
    from ray.exceptions import RayTaskError

    if isinstance(error, RayTaskError):
        return error.cause if isinstance(error.cause, Exception) else error
    return WorkerDied(f"{unit.name}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
