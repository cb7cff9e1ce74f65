"""A job in which one rank hangs ends within a bounded time, with a message that names the rank.

In: the place of every rank in its work (`at`, told by the loop), and the store through which the ranks found each
other. Out: nothing while any rank moves. When none has moved for `hang_timeout_s`: every rank's stacks in
<run>/hang/rank-<k>.txt, one message, and the end of the processes with the exit code of HangError.

Why: ranks wait for each other in every step, and a collective operation waits without a word; the last line of the log
is rank 0's and says nothing about the rank that is missing. So a thread of each rank writes a beat and its place to the
store, and those of the first two ranks (the second in case the first is frozen) read them all. A reader counts its own
looks in which nothing changed and compares no clocks; where it cannot read, it does not count. If the store itself is
gone, the time limit of the process group remains.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch.distributed as dist

from configs.errors import HangError
from megatron_train.ranks import place
from megatron_train.ranks.place import START, RankPlace

if TYPE_CHECKING:
    from megatron_train.ranks.parallel import Ranks

LOOKS = 20
"""A reader's looks within the time limit."""
LONGEST_INTERVAL_S = 5.0
READERS = 2
STORE_TIMEOUT = timedelta(seconds=5)
FAREWELL_S = 5.0
"""How long the ranks wait for each other's stacks, and for the message, before they end."""


@dataclass
class Seen:
    """What a reader knows of one rank."""

    place: RankPlace = START
    process: str = "not heard of since the start"
    beat: int = -1
    still: int = 0
    """Looks since it was seen to move."""
    silent: int = 0
    """Looks since its last beat."""

    def look(self, beat: int, place: RankPlace, process: str) -> None:
        self.still = self.still + 1 if place == self.place else 0
        self.silent = self.silent + 1 if beat == self.beat else 0
        self.beat, self.place, self.process = beat, place, process


class HangVerdict(NamedTuple):
    """The ranks that the others wait for; none where all stand at the same place."""

    ranks: list[int]
    silent: bool = False
    """They give no sign of life: frozen, or their machine is out of reach."""


def judge(seen: Mapping[int, Seen], patience: int) -> HangVerdict | None:
    """The rank that holds the job up; None unless no rank was seen to move in the last `patience` looks.

    A rank without a beat for half of them is to blame before any other: what it said of its place is old.
    """
    if min(rank.still for rank in seen.values()) < patience:
        return None
    if silent := [number for number, rank in seen.items() if rank.silent >= patience // 2]:
        return HangVerdict(silent, silent=True)
    last = min(rank.place for rank in seen.values())
    behind = [number for number, rank in seen.items() if rank.place == last]
    return HangVerdict(behind if len(behind) < len(seen) else [])


def describe(seen: Mapping[int, Seen], verdict: HangVerdict, timeout_s: float, stacks: Path) -> HangError:
    """The message for the user."""
    lines = []
    for number in verdict.ranks:
        rank = seen[number]
        stands = "gives no sign of life (frozen, or out of reach); it was last seen" if verdict.silent else "has stood"
        lines.append(f"rank {number} ({rank.process}) {stands} at {rank.place}")
    others: dict[str, list[int]] = {}
    for number, rank in seen.items():
        if number not in verdict.ranks:
            others.setdefault(str(rank.place), []).append(number)
    waits = f"waiting for {'it' if len(verdict.ranks) == 1 else 'them'}" if verdict.ranks else "all at the same place"
    lines += [f"  {_ranks(numbers)} at {place}, {waits}" for place, numbers in others.items()]
    return HangError(
        f"no rank has moved for {timeout_s:g} s\n  " + "\n  ".join(line.strip() for line in lines),
        hint=f"see the stacks in {stacks}; hang_timeout_s is the time limit",
    )


def _ranks(numbers: list[int]) -> str:
    """[0, 1, 2, 5] -> ranks 0-2, 5."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    shown = (f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
    return ("rank " if len(numbers) == 1 else "ranks ") + ", ".join(shown)


class Watchdog(threading.Thread):
    """The thread of one rank."""

    def __init__(self, store: dist.Store, rank: int, world: int, timeout_s: float, stacks: Path) -> None:
        super().__init__(name="watchdog", daemon=True)
        self.store, self.rank, self.world, self.timeout_s, self.stacks = store, rank, world, timeout_s, stacks
        self.interval = min(timeout_s / LOOKS, LONGEST_INTERVAL_S)
        self.patience = round(timeout_s / self.interval)
        self.process = f"host {socket.gethostname()}, pid {os.getpid()}"
        self.seen = {number: Seen() for number in range(world)}
        self.beat = 0
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(self.interval):
            # A store that fails ends no healthy job: the next look tries again.
            with contextlib.suppress(RuntimeError):
                self._tell()
                if self.store.check(["verdict"]):
                    self._leave()
                if self.rank < READERS:
                    self._read()

    def stop(self) -> None:
        self.ended.set()
        self.join(2 * STORE_TIMEOUT.total_seconds())

    def _tell(self) -> None:
        self.beat += 1
        self.store.set(str(self.rank), json.dumps([self.beat, place.current(), self.process]))

    def _read(self) -> None:
        # A key that is not there yet would be waited for.
        keys = {number: str(number) for number in self.seen}
        if not self.store.check(list(keys.values())):
            keys = {number: key for number, key in keys.items() if self.store.check([key])}
        found = dict(zip(keys, self.store.multi_get(list(keys.values())), strict=True))
        for number, rank in self.seen.items():
            if number in found:
                beat, place, process = json.loads(found[number])
                rank.look(beat, RankPlace(*place), process)
            else:
                rank.look(rank.beat, rank.place, rank.process)
        verdict = judge(self.seen, self.patience)
        if verdict is not None and self.store.add("claimed", 1) == 1:
            self._speak(verdict)

    def _speak(self, verdict: HangVerdict) -> None:
        """The reader that saw it first says so, once the others had the time to write their stacks, and ends."""
        error = describe(self.seen, verdict, self.timeout_s, self.stacks)
        try:
            self.store.set("verdict", "")
            self._write_stacks()
            alive = set(self.seen) - set(verdict.ranks if verdict.silent else [])
            self._await([f"stacks {number}" for number in alive])
        finally:
            print(f"error: {error}", file=sys.stderr, flush=True)
            with contextlib.suppress(RuntimeError):
                self.store.set("said", "")
            os._exit(HangError.exit_code)

    def _leave(self) -> None:
        try:
            self._write_stacks()
            self._await(["said"])
        finally:
            os._exit(HangError.exit_code)  # the training thread cannot be reached

    def _write_stacks(self) -> None:
        with contextlib.suppress(OSError):
            self.stacks.mkdir(parents=True, exist_ok=True)
            with (self.stacks / f"rank-{self.rank}.txt").open("w") as stream:
                print(f"rank {self.rank} ({self.process}) at {place.current()}", file=stream, flush=True)
                faulthandler.dump_traceback(stream)
        self.store.set(f"stacks {self.rank}", "")

    def _await(self, keys: list[str]) -> None:
        end = time.monotonic() + FAREWELL_S
        while time.monotonic() < end and not self.store.check(keys):
            time.sleep(0.1)


_runs = 0


@contextlib.contextmanager
def watching(ranks: Ranks, timeout_s: float, stacks: Path) -> Iterator[None]:
    """Watch over the ranks while this lasts; `timeout_s` 0: do not. One process alone has nobody to wait for.

    Raises HangError where communication fails, since another process has gone then.
    """
    global _runs
    place.reset()
    _runs += 1
    watchdog = None
    if ranks.store is not None and timeout_s:
        # A connection of its own: one connection answers one thread at a time, and the training thread may wait long.
        connection: Any = ranks.store  # PyTorch declares clone() from 2.14 on only
        store = dist.PrefixStore(f"watchdog {_runs}", connection.clone())
        store.set_timeout(STORE_TIMEOUT)
        watchdog = Watchdog(store, ranks.rank, ranks.world, timeout_s, stacks)
        watchdog.start()
    try:
        yield
    except RuntimeError as error:
        if ranks.world > 1 and (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise HangError(
                f"rank {ranks.rank} was at {place.current()} when its connection to the others failed; "
                "one has probably gone",
                hint=f"see the first failure in torchrun's summary ({error})",
            ) from None
        raise
    finally:
        if watchdog is not None:
            watchdog.stop()
