"""Processes of a real Ray cluster are killed while it scores: nothing is lost, nothing is scored from wrong weights.

Each kind is killed at two seeded random moments, at ten with --full-size (`make experiments NAME=ray_kills`).
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from kills import kill_while_scoring
from random_exports import random_export

from configs.layout import StudyFolder
from configs.load import BENCHMARKS
from configs.runtime.cluster import START_ATTEMPTS, cluster
from mixtures.tokens.tokenizer import Tokenizer
from ray_eval.checkpoints.exports import inspect_exports
from ray_eval.plans.plan import Plan
from ray_eval.scoring import ScoreOptions, ScoringProgress, score_study, study_plan
from ray_eval.workers.engine import Workload, score_on_ray
from ray_eval.workers.worker import ScoreJob, Worker

pytestmark = pytest.mark.slow
KILLS, KILLS_AT_FULL_SIZE = 2, 10
NUM_CHECKPOINTS = 3
SHAPE: dict[str, Any] = {"num_hidden_layers": 4, "hidden_size": 256}
UNIT_WORK = 1e6
"""Operations: each batch is a unit of its own."""
QUICK_TO_NOTICE = {"health_check_initial_delay_ms": 500, "health_check_period_ms": 1000}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        kills = KILLS_AT_FULL_SIZE if metafunc.config.getoption("--full-size") else KILLS
        metafunc.parametrize("seed", range(kills))


class Together(Worker):
    """Starts to work when two are there; writes down where each lives."""

    def __init__(self, work: float | None, folder: Path) -> None:
        super().__init__(work)
        self._folder = folder

    def host(self) -> str:
        (self._folder / str(os.getpid())).write_text(ray.get_runtime_context().get_node_id())
        while len(list(self._folder.iterdir())) < 2:
            time.sleep(0.01)
        return super().host()


class Nodes:
    """A cluster of two machines with one CPU each, as processes of this one."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster()
        self._start(_system_config=QUICK_TO_NOTICE, include_dashboard=False)
        self.address: str = self._cluster.address
        self.second = self._start()

    def _start(self, **options: Any) -> Any:
        for attempt in range(START_ATTEMPTS):
            try:
                return self._cluster.add_node(num_cpus=1, **options)
            except Exception:  # Ray raises a bare Exception where a busy machine was too slow
                if attempt + 1 == START_ATTEMPTS:
                    raise

    def kill_second(self) -> None:
        """As a machine dies: its raylet, without a word to anybody."""
        (raylet,) = self.second.all_processes["raylet"]
        os.kill(raylet.process.pid, signal.SIGKILL)

    def replace_second(self) -> None:
        self._cluster.remove_node(self.second, allow_graceful=False)
        self.second = self._start()

    def end(self) -> None:
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with pytest.MonkeyPatch.context() as patch:
        # Ray reads it once in a process: other tests may have had a cluster of their own.
        patch.setenv("RAY_AUTH_TOKEN", os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(32))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        nodes = Nodes()
        patch.setenv("RAY_ADDRESS", nodes.address)
        try:
            with cluster():
                ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test
                yield nodes
        finally:
            nodes.end()


@pytest.fixture(scope="module")
def undisturbed(
    tokenizer: Tokenizer, benchmark_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, bytes]]:
    """Checkpoints, and what is to come out."""
    runs = tmp_path_factory.mktemp("undisturbed")
    for seed in range(NUM_CHECKPOINTS):
        random_export(export_folder(runs, seed), tokenizer, seed=seed, **SHAPE)
    score_study(StudyFolder(runs, "trial"), ScoreOptions(documents_root=benchmark_root, use_ray=False))
    expected = files(runs)
    shutil.rmtree(runs / "trial" / "scores")
    assert len(expected) == NUM_CHECKPOINTS
    return runs, expected


@pytest.fixture
def runs(undisturbed: tuple[Path, dict[str, bytes]], tmp_path: Path) -> Path:
    return shutil.copytree(undisturbed[0], tmp_path / "runs")


def export_folder(runs: Path, seed: int) -> Path:
    return StudyFolder(runs, "trial").run("mini_s", "V1P0", seed, "pt").export(1)


def files(runs: Path) -> dict[str, bytes]:
    """Everything in the folder of the scores, parts included."""
    folder = runs / "trial" / "scores"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def plan_of(runs: Path, root: Path) -> Plan:
    export = inspect_exports(StudyFolder(runs, "trial"))[0][0]
    return study_plan(StudyFolder(runs, "trial"), export, ScoreOptions(root, BENCHMARKS))


def disturbed(
    runs: Path, root: Path, folder: Path, at_step: int, delay_s: float, kill: Callable[[], None]
) -> list[str]:
    """Score on two workers; soon after some step, kill. What the engine said."""
    folder.mkdir()
    work = Workload(
        [(plan_of(runs, root), [ScoreJob(export, "fp32") for export in inspect_exports(StudyFolder(runs, "trial"))[0]])]
    )

    class Here(Together):
        def __init__(self, work: float | None = None, num_gpus: int = 1) -> None:
            super().__init__(work, folder)

    said: list[str] = []
    timer = threading.Timer(delay_s, kill)
    finished = 0
    for number, step in enumerate(score_on_ray(work, said.append, num_workers=2, unit_work=UNIT_WORK, worker=Here)):
        assert step.error is None
        finished += step.finished
        if number == at_step:
            timer.start()
    timer.join()
    assert finished == NUM_CHECKPOINTS
    return said


def until_hit(
    seed: int, runs: Path, root: Path, tmp_path: Path, kill: Callable[[Path], None], after: Callable[[], None]
) -> None:
    random = np.random.default_rng(seed)
    at_step, delay_s = int(random.integers(1, 60)), float(random.uniform(0, 0.06))
    for attempt in range(5):
        folder = tmp_path / f"workers-{attempt}"
        said = disturbed(runs, root, folder, at_step, delay_s, lambda folder=folder: kill(folder))  # type: ignore[misc]
        after()
        if any("a worker died" in line for line in said):
            return
        at_step //= 2  # it was too late
        shutil.rmtree(runs / "trial" / "scores")
    pytest.fail("no kill hit anything")


def test_a_killed_actor(
    seed: int,
    nodes: Nodes,
    runs: Path,
    undisturbed: tuple[Path, dict[str, bytes]],
    benchmark_root: Path,
    tmp_path: Path,
) -> None:
    def kill(folder: Path) -> None:
        pids = sorted(int(path.name) for path in folder.iterdir())
        os.kill(pids[seed % 2], signal.SIGKILL)

    until_hit(seed, runs, benchmark_root, tmp_path, kill, lambda: None)
    assert files(runs) == undisturbed[1]


def test_a_killed_node(
    seed: int,
    nodes: Nodes,
    runs: Path,
    undisturbed: tuple[Path, dict[str, bytes]],
    benchmark_root: Path,
    tmp_path: Path,
) -> None:
    """Its replacement can be placed nowhere; the other machine does the rest."""

    def kill(folder: Path) -> None:
        assert len({path.read_text() for path in folder.iterdir()}) == 2
        nodes.kill_second()

    until_hit(seed, runs, benchmark_root, tmp_path, kill, nodes.replace_second)
    assert files(runs) == undisturbed[1]


def test_a_killed_driver(
    seed: int,
    nodes: Nodes,
    runs: Path,
    undisturbed: tuple[Path, dict[str, bytes]],
    benchmark_root: Path,
    tokenizer: Tokenizer,
) -> None:
    """And before it is started again, another checkpoint takes the place of one that was begun."""
    at = int(np.random.default_rng(seed).integers(2, 25))
    kill_while_scoring(runs, benchmark_root, UNIT_WORK, at, num_workers=2, checkpoints=NUM_CHECKPOINTS)
    begun = {Path(name).parts[2] for name in files(runs) if name.endswith(".part")}
    changed = int(sorted(begun)[0].removeprefix("seed"))
    shutil.rmtree(export_folder(runs, changed))
    random_export(export_folder(runs, changed), tokenizer, seed=100 + changed, **SHAPE)

    seen: list[ScoringProgress] = []
    summary = score_study(
        StudyFolder(runs, "trial"),
        ScoreOptions(documents_root=benchmark_root, num_workers=2, unit_work=UNIT_WORK, progress=seen.append),
    )
    assert summary.scored + summary.skipped == NUM_CHECKPOINTS
    after = files(runs)
    shutil.rmtree(runs / "trial" / "scores")
    score_study(StudyFolder(runs, "trial"), ScoreOptions(documents_root=benchmark_root, use_ray=False))
    assert after == files(runs)
    same = {name: content for name, content in after.items() if f"seed{changed}/" not in name}
    assert same.items() <= undisturbed[1].items() and len(same) == NUM_CHECKPOINTS - 1
    assert seen[-1].num_tokens < summary.counts.tokens or len(begun) == 1
