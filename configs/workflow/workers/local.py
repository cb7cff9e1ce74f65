"""Workers of one machine: warm processes, one for each GPU or else for each share of the CPUs, without Ray.

In: how to do a unit. Out: a future of its product. A process imports its packages once and serves many units; one that
dies is replaced and takes down no other. All end with the process that started them, however it ends.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType

from configs.workflow.units import Unit
from configs.workflow.workers.dispatch import WorkerDied
from configs.workflow.workers.processes import Command, end_with_parent, run_command

START_S = 60.0
"""Time in which a new process has surely said who it is."""


class _Slot:
    """A process that does one unit after another, on one GPU or on CPUs alone."""

    def __init__(self, gpu: int | None, threads: int) -> None:
        self.gpu, self._threads, self.busy = gpu, threads, False
        self._broken: list[ProcessPoolExecutor] = []
        self._stopped, self._lock = False, threading.Lock()
        self._executor = self._new()

    def _new(self) -> ProcessPoolExecutor:
        # Spawned, not forked: a child forked beside threads may hang, and CUDA does not survive a fork.
        context = multiprocessing.get_context("spawn")
        executor = ProcessPoolExecutor(1, context, initializer=_begin, initargs=(self.gpu, self._threads))
        # A new process inherits what is blocked: until `_begin` ignores Ctrl-C, none may come.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._pid = executor.submit(os.getpid)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        return executor

    def submit(self, do: Callable[[Unit], str], unit: Unit) -> Future[str]:
        self.busy = True
        try:
            return self._executor.submit(do, unit)
        except BrokenProcessPool:  # it died while it had nothing to do
            self._executor = self._new()
            return self._executor.submit(do, unit)

    def replace(self) -> None:
        """The process has died; one that was stopped gets no successor."""
        with self._lock:
            if not self._stopped:
                self._broken.append(self._executor)
                self._executor = self._new()

    def stop(self) -> None:
        """Ask what is at work to end now; a training then saves where it is. A process that just starts is awaited."""
        with self._lock:
            self._stopped = True
        with contextlib.suppress(TimeoutError, BrokenProcessPool, CancelledError, ProcessLookupError):
            os.kill(self._pid.result(START_S), signal.SIGTERM)

    def close(self) -> None:
        # Broken ones too: a thread of theirs that still tidies up must not meet the end of the interpreter.
        for executor in (*self._broken, self._executor):
            executor.shutdown(wait=True, cancel_futures=True)


class LocalWorkers:
    """Units that need several GPUs at once are commands (torchrun); all others are calls in a warm process."""

    patience_s = 0.0

    def __init__(
        self,
        do: Callable[[Unit], str],
        command: Command,
        outcome: Callable[[Unit, int], str],
        workers: int | None = None,
        gpus: int = 0,
    ) -> None:
        """do: picklable.   command: to do a unit of several GPUs.   outcome: of one whose command ended with this code.
        workers: processes at a time without GPUs; None: one for each CPU."""
        self._do, self._command, self._outcome = do, command, outcome
        cpus = os.cpu_count() or 1
        count = gpus or workers or cpus
        # Each process gets its share of the CPUs: torch would start a thread for every CPU in each of them.
        self._slots = [_Slot(i if gpus else None, max(1, cpus // count)) for i in range(count)]
        self._threads = ThreadPoolExecutor(count)
        self._commands: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> LocalWorkers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            for slot in self._slots:
                slot.stop()
            for command in list(self._commands.values()):
                command.terminate()
        for slot in self._slots:
            slot.close()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def room(self, unit: Unit) -> bool:
        return len(self._free()) >= self._slots_of(unit)

    def start(self, unit: Unit) -> Future[str]:
        taken = self._free()[: self._slots_of(unit)]
        if len(taken) > 1:
            for slot in taken:
                slot.busy = True
            inner = self._threads.submit(self._run_command, unit, [slot.gpu for slot in taken])
        else:
            inner = taken[0].submit(self._do, unit)
        outer: Future[str] = Future()

        def ended(future: Future[str]) -> None:
            error = future.exception()
            if isinstance(error, BrokenProcessPool):
                taken[0].replace()
                error = WorkerDied(f"the process that worked on {unit.name} died")
            for slot in taken:
                slot.busy = False
            if error is None:
                outer.set_result(future.result())
            else:
                outer.set_exception(error)

        inner.add_done_callback(ended)
        return outer

    def _free(self) -> list[_Slot]:
        return [slot for slot in self._slots if not slot.busy]

    def _slots_of(self, unit: Unit) -> int:
        return max(1, unit.gpus) if self._slots[0].gpu is not None else 1

    def _run_command(self, unit: Unit, gpus: Sequence[int | None]) -> str:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else None
        chosen = [names[gpu] if names else str(gpu) for gpu in gpus if gpu is not None]
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": ",".join(chosen)}
        command = self._command(unit, ["--standalone", "--nproc-per-node", str(len(chosen))])
        try:
            code = run_command(command, environment, lambda started: self._commands.update({unit.name: started}))
        finally:
            self._commands.pop(unit.name, None)
        return self._outcome(unit, code)


def _begin(gpu: int | None, threads: int) -> None:
    """Prepare a new process before it imports anything heavy."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's to handle
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    if gpu is not None:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[gpu] if visible else str(gpu)
