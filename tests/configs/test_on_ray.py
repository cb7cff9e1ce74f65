"""Where on a Ray cluster a unit goes, by the machines that there are; the cluster is what `ray.nodes` says."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
import ray

from configs.errors import ConfigError, ResourceError
from configs.load import load_study
from configs.workflow.schedule import machines_for
from configs.workflow.units import Unit, study_units
from configs.workflow.workers import on_ray
from configs.workflow.workers.dispatch import Event, WorkerDied, dispatch
from configs.workflow.workers.on_ray import RayWorkers, Share

HEAD = (0, 8)
"""(GPUs, CPUs) of a machine."""
UNITS = {unit.name: unit for unit in study_units(load_study("paper"), Path("runs"))}
TRAINING = UNITS["pretrain/1b/V1P0/seed0"]
SCORE = UNITS["score/1b/V1P0/seed0/pt/last"]


class Cluster:
    def __init__(self, *machines: tuple[int, int]) -> None:
        self.machines = list(machines)

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"GPU": gpus, "CPU": cpus}} for gpus, cpus in self.machines]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    found = Cluster(HEAD)
    monkeypatch.setattr(ray, "nodes", lambda: found.nodes())
    monkeypatch.setattr(on_ray, "LOOK_AGAIN_S", 0.0)
    return found


def workers(patience_s: float = 0.0) -> RayWorkers:
    return RayWorkers(lambda unit: "", lambda unit, launch: [], lambda unit, code: "", patience_s)


def in_fp32(unit: Unit) -> Unit:
    assert unit.run is not None
    config = unit.run.config.model_copy(update={"precision": "fp32"})
    return replace(unit, run=replace(unit.run, config=config))


@pytest.mark.parametrize("unit", [TRAINING, SCORE, in_fp32(TRAINING), in_fp32(SCORE)])
def test_a_unit_that_had_gpus_never_goes_to_a_cpu(cluster: Cluster, unit: Unit) -> None:
    cluster.machines = [HEAD, (8, 64)]
    made = workers()
    with_gpus = Share(unit.gpus, 1)
    assert made._share(unit) == with_gpus and made.room(unit)
    cluster.machines = [HEAD]
    assert made._share(unit) == with_gpus and not made.room(unit)
    cluster.machines = [HEAD, (4, 32), (4, 32)]
    assert made.room(unit) and made._share(unit) == (Share(8, 2, 2) if unit.gpus == 8 else with_gpus)
    assert made._share(UNITS["tokenize"]) == Share(0, 0) and made._share(UNITS["analyse"]) == Share(0, 1)


def test_on_a_cluster_without_gpus_fp32_goes_to_cpus_and_bf16_waits_for_one(cluster: Cluster) -> None:
    made = workers()
    for unit in (TRAINING, SCORE):
        assert made._share(in_fp32(unit)) == Share(0, 1) and made.room(in_fp32(unit))
        assert not made.room(unit)
    cluster.machines.append((8, 64))
    assert made.room(TRAINING) and made.room(SCORE)


def test_it_says_that_it_takes_cpus(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ray, "remote", MagicMock())
    made = workers()
    for unit in (UNITS["tokenize"], in_fp32(TRAINING), in_fp32(SCORE)):
        made.start(unit)
    assert capsys.readouterr().out == (
        f"the cluster has no GPU: models of precision: fp32 take CPUs, {TRAINING.name} first\n"
    )


def test_machines_that_never_come_end_the_study_with_a_message(cluster: Cluster) -> None:
    events: list[Event] = []
    with pytest.raises(ResourceError, match=f"{TRAINING.name} needs 8 GPUs at once, and there are fewer; waited"):
        dispatch([replace(TRAINING, inputs=())], workers(1.0), {TRAINING.name: 1.0}, events.append)
    assert {event.kind for event in events} == {"tick"}  # it was never started


def test_a_task_whose_machine_went_before_it_began_comes_back(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled: list[Any] = []
    monkeypatch.setattr(ray, "cancel", cancelled.append)
    monkeypatch.setattr(on_ray, "LOOK_AGAIN_S", 0.01)
    cluster.machines = [HEAD, (8, 64)]
    with workers() as made:
        made._taken |= {"training": Share(8, 1), "score": Share(1, 1), "analyse": Share(0, 1)}
        made._tasks |= {name: name for name in made._taken}
        time.sleep(0.1)
        assert not cancelled
        cluster.machines = [HEAD, (2, 8)]
        deadline = time.monotonic() + 10
        while not cancelled:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        made._tasks.clear()
    assert set(cancelled) == {"training"}
    lost = on_ray._translated(ray.exceptions.TaskCancelledError(), SCORE)
    assert isinstance(lost, WorkerDied)


@pytest.mark.parametrize("gpus", range(25))
def test_the_fewest_machines_that_gpus_spread_over_evenly(gpus: int) -> None:
    for most in range(1, 17):
        n = machines_for(gpus, most)
        even = [m for m in range(1, gpus + 1) if gpus % m == 0 and gpus / m <= most]
        assert n == (min(even) if gpus else 1)
    with pytest.raises(ConfigError) if gpus else contextlib.nullcontext():
        machines_for(gpus, 0)
