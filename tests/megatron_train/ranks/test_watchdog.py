"""A rank that hangs, is frozen or dies: the job ends within seconds, and the message names it."""

from __future__ import annotations

import socket
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from train_runs import PROJECT, TINY, launch

from configs.errors import HangError
from megatron_train.ranks import place, watchdog
from megatron_train.ranks.parallel import Ranks
from megatron_train.ranks.place import PHASES, RankPlace
from megatron_train.ranks.watchdog import HangVerdict, Seen, describe, judge

PATIENCE = 20


def standing(place: RankPlace, *, silent: int = 0, still: int = PATIENCE) -> Seen:
    return Seen(place=place, process="host h, pid 1", still=still, silent=silent)


places = st.builds(
    RankPlace, st.integers(0, 3), st.integers(0, len(PHASES) - 1), calls=st.integers(0, 2), waits=st.booleans()
)


@given(st.lists(places, min_size=2, max_size=6))
def test_whoever_is_furthest_behind_is_to_blame(where: list[RankPlace]) -> None:
    verdict = judge({rank: standing(place) for rank, place in enumerate(where)}, PATIENCE)
    assert verdict is not None and not verdict.silent
    blamed = [where[rank] for rank in verdict.ranks]
    others = [place for rank, place in enumerate(where) if rank not in verdict.ranks]
    if blamed:
        assert len(set(blamed)) == 1 and all(blamed[0] < place for place in others)
    else:
        assert len(set(where)) == 1


@given(st.lists(places, min_size=2, max_size=6), st.data())
def test_a_rank_that_moves_acquits_all(where: list[RankPlace], data: st.DataObject) -> None:
    seen = {rank: standing(place, silent=99) for rank, place in enumerate(where)}
    seen[data.draw(st.sampled_from(sorted(seen)))].still = data.draw(st.integers(0, PATIENCE - 1))
    assert judge(seen, PATIENCE) is None


def test_a_silent_rank_is_to_blame_before_one_behind() -> None:
    seen = {
        0: standing(RankPlace(5, 1)),
        1: standing(RankPlace(6, 2), silent=PATIENCE),
        2: standing(RankPlace(6, 3), silent=3),
    }
    assert judge(seen, PATIENCE) == HangVerdict([1], silent=True)


def test_a_rank_that_works_is_behind_one_that_waits_for_it() -> None:
    seen = {0: standing(RankPlace(5, 7)), 1: standing(RankPlace(5, 7, waits=True))}
    assert judge(seen, PATIENCE) == HangVerdict([0])


def test_looks_count_what_did_not_change() -> None:
    seen, counts = Seen(), []
    for beat, step in ((1, 1), (2, 1), (3, 1), (3, 1), (3, 1), (4, 2), (4, 2)):
        seen.look(beat, RankPlace(step), "p")
        counts.append((seen.still, seen.silent))
    assert counts == [(0, 0), (1, 0), (2, 0), (3, 1), (4, 2), (0, 0), (1, 1)]


def test_the_messages() -> None:
    ahead = standing(RankPlace(12, PHASES.index("forward and backward")))
    seen = dict.fromkeys((0, 1, 2, 4), ahead) | {3: standing(RankPlace(12, PHASES.index("data")))}
    text = str(describe(seen, HangVerdict([3]), 600, Path("hang")))
    assert "no rank has moved for 600 s" in text
    assert "rank 3 (host h, pid 1) has stood at step 12, data\n" in text
    assert "ranks 0-2, 4 at step 12, forward and backward, waiting for it" in text and "stacks in hang" in text
    text = str(describe(seen, HangVerdict([3], silent=True), 600, Path("hang")))
    assert "rank 3 (host h, pid 1) gives no sign of life (frozen, or out of reach); it was last seen at step 12" in text
    text = str(describe({0: ahead, 1: ahead}, HangVerdict([]), 600, Path("hang")))
    assert "ranks 0-1 at step 12, forward and backward, all at the same place" in text


def test_calls_within_a_phase_are_progress() -> None:
    place.at(3, "data")
    first = place.current()
    place.at(3, "data")
    again = place.current()
    with place.waiting():
        assert place.current() > again
    assert first < again == place.current()
    place.at(3, "update")
    assert again < place.current() < RankPlace(4)


@pytest.fixture
def ranks() -> Ranks:
    """Rank 0 of two; the test plays the other in `ranks.store`."""
    group = dist.ProcessGroup(0, 2)
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=5))
    return Ranks(0, 2, 0, 1, 0, 2, torch.device("cpu"), group, group, store)


@pytest.fixture
def verdicts(monkeypatch: pytest.MonkeyPatch) -> list[HangVerdict]:
    """What the watchdog would have ended the process for."""
    found: list[HangVerdict] = []
    monkeypatch.setattr(watchdog.Watchdog, "_speak", lambda self, verdict: found.append(verdict))
    return found


def test_a_healthy_run_is_left_alone_and_leaves_nothing_behind(
    ranks: Ranks, tmp_path: Path, verdicts: list[HangVerdict]
) -> None:
    """Phases of two thirds of the limit; twice in one process."""
    for _ in range(2):
        before = threading.active_count()
        with watchdog.watching(ranks, 0.9, tmp_path / "hang"):
            for phase in ("data", "update", "end"):
                place.at(1, phase)
                time.sleep(0.6)
            assert threading.active_count() == before + 1
        assert threading.active_count() == before
    assert not verdicts and not (tmp_path / "hang").exists()


def test_a_rank_never_heard_of_is_named_after_the_limit(
    ranks: Ranks, tmp_path: Path, verdicts: list[HangVerdict]
) -> None:
    with watchdog.watching(ranks, 0.5, tmp_path / "hang"):
        time.sleep(0.4)
        assert not verdicts
        time.sleep(1)
    assert verdicts == [HangVerdict([1], silent=True)], "said once"


def test_no_thread_where_it_is_switched_off_or_alone(ranks: Ranks, tmp_path: Path) -> None:
    before = threading.active_count()
    with watchdog.watching(ranks, 0, tmp_path):
        assert threading.active_count() == before
    alone = Ranks(0, 1, 0, 1, 0, 1, ranks.device, ranks.data_group, ranks.data_group)
    with watchdog.watching(alone, 600, tmp_path):
        assert threading.active_count() == before


def test_a_store_that_fails_ends_nothing(ranks: Ranks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = []

    def fail(self: watchdog.Watchdog) -> None:
        failures.append(1)
        raise dist.DistStoreError("unreachable")

    monkeypatch.setattr(watchdog.Watchdog, "_tell", fail)
    with watchdog.watching(ranks, 0.2, tmp_path / "hang"):
        time.sleep(0.8)
    assert len(failures) > 30 and not (tmp_path / "hang").exists()


def test_an_error_of_communication_is_one_message(ranks: Ranks, tmp_path: Path) -> None:
    message = "rank 0 was at step 4, update when its connection"
    with pytest.raises(HangError, match=message), watchdog.watching(ranks, 600, tmp_path):
        place.at(4, "update")
        raise RuntimeError("[.../gloo/transport/tcp/pair.cc:537] Connection reset by peer")
    with pytest.raises(RuntimeError, match=r"^shapes differ$"), watchdog.watching(ranks, 600, tmp_path):
        raise RuntimeError("shapes differ")


SCRIPT = """
import os, signal, sys, time
from pathlib import Path
sys.path[0] = {project!r}
from megatron_train import data, pretrain

step = data.PretrainData.step

def patched(self, number):
    if self.ranks.rank == {rank} and number == 12:
        Path({pid_file!r}).write_text(str(os.getpid()))
        {action}
    return step(self, number)

data.PretrainData.step = patched
if __name__ == "__main__":
    pretrain.main(sys.argv[1:])
"""
HANG, FREEZE, DIE = "time.sleep(600)", "os.kill(os.getpid(), signal.SIGSTOP)", "os.kill(os.getpid(), signal.SIGKILL)"


def pretrain_patched(data: Path, folder: Path, rank: int, action: str, *, expect: int) -> tuple[str, str, float]:
    """Train on two ranks, one of which does `action` before its data of step 12.

    Returns what was printed, the process id of that rank, and the seconds from the action to the end of the job.
    """
    script, pid_file = folder / "patched.py", folder / "pid"
    script.write_text(SCRIPT.format(project=str(PROJECT), rank=rank, action=action, pid_file=str(pid_file)))
    options = ["--config", "mini_s.yaml", "--study", "t", "--data", str(data), "--runs", str(folder), *TINY]
    done = launch(str(script), *options, "hang_timeout_s=3", "log_every_steps=5", processes=2, expect=expect)
    return done.stdout + done.stderr, pid_file.read_text(), time.time() - pid_file.stat().st_mtime


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "action", "stands", "within_s"),
    [
        pytest.param(1, HANG, "has stood at step 12, data", 20, id="1 hangs"),
        # torchrun gives a process that does not react 30 s before it is killed.
        pytest.param(1, FREEZE, "gives no sign of life", 50, id="1 is frozen"),
        pytest.param(0, FREEZE, "gives no sign of life", 50, id="0 is frozen"),
    ],
)
def test_a_rank_that_stands_still_is_named(
    data: Path, tmp_path: Path, rank: int, action: str, stands: str, within_s: float
) -> None:
    printed, pid, seconds = pretrain_patched(data, tmp_path, rank, action, expect=1)
    assert f"rank {rank} (host {socket.gethostname()}, pid {pid}) {stands}" in printed, printed
    assert printed.count("error: no rank has moved for 3 s") == 1
    assert f"rank {1 - rank} at step 12, " in printed and "exitcode  : 4 " in printed
    assert 3 < seconds < within_s
    hang = tmp_path / "t" / "mini_s" / "V1P0" / "seed0" / "pt" / "hang"
    assert f"see the stacks in {hang};" in printed
    stacks = {path.name: path.read_text() for path in hang.iterdir()}
    assert "in _train" in stacks[f"rank-{1 - rank}.txt"]
    if action == HANG:
        assert "in patched" in stacks[f"rank-{rank}.txt"] and "at step 12, data" in stacks[f"rank-{rank}.txt"]


@pytest.mark.slow
def test_a_rank_that_is_killed_is_named(data: Path, tmp_path: Path) -> None:
    printed, pid, seconds = pretrain_patched(data, tmp_path, 1, DIE, expect=1)
    cause = printed.partition("Root Cause")[2]
    assert "rank      : 1 " in cause and f"pid: {pid}" in cause and "SIGKILL" in cause, printed
    assert "rank 0 was at step 12, " in printed
    assert "[rank0]: Traceback" not in printed
    assert seconds < 30


@pytest.mark.slow
def test_a_slow_rank_is_left_alone(data: Path, tmp_path: Path) -> None:
    printed, _, _ = pretrain_patched(data, tmp_path, 1, "time.sleep(2)", expect=0)
    assert "done in" in printed and "no rank has moved" not in printed
