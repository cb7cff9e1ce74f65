"""The Ray engine: the same files as without it, a cluster that is too small, and `ray job submit`."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray_head import head_node, submitted

from configs.artifacts import read_json, sha256_files, write_json
from configs.errors import ArtifactError, ConfigError, ResourceError
from configs.layout import PROJECT_ROOT, StudyFolder
from configs.load import BENCHMARKS
from configs.runtime.cluster import cluster
from configs.schema import StudyScoring
from ray_eval.checkpoints.exports import inspect_exports
from ray_eval.scoring import ScoreOptions, ScoringProgress, score_study, study_plan
from ray_eval.workers import engine
from ray_eval.workers.engine import Step, Workload, score_on_ray
from ray_eval.workers.task_queue import DEATHS
from ray_eval.workers.worker import Order, Reply, ScoreJob, Worker

ExportMaker = Callable[..., Path]
NUM_CHECKPOINTS = 4
SCORING = StudyScoring(sample=2)
UNIT_WORK = 1e6
"""Operations: a batch or two."""


class Poisoned(Worker):
    """Dies of every unit that begins with batch 3 of the run folder `seed1`."""

    def do(self, plan: object, order: Order) -> Reply:
        unit = order.task.unit
        if order.job.checkpoint.run.seed == 1 and unit is not None and unit.start == 3:
            time.sleep(0.5)  # so that the driver knows the unit before as done
            os._exit(1)
        return super().do(plan, order)  # type: ignore[arg-type]


class Stillborn(Worker):
    def __init__(self, work: float | None = None, num_gpus: int = 1) -> None:
        raise RuntimeError("a package is missing here")


class WithoutSpace(Worker):
    """Has a disk with room for a few files."""

    FILES = 7
    left = FILES

    def do(self, plan: object, order: Order) -> Reply:
        os.fsync = self._sync  # of this actor's process
        return super().do(plan, order)  # type: ignore[arg-type]

    def _sync(self, _: int) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def runs(make_export: ExportMaker, tmp_path: Path) -> Path:
    for seed in range(NUM_CHECKPOINTS):
        make_export(StudyFolder(tmp_path, "trial").run("mini_s", "V1P0", seed, "pt").export(1), seed=seed)
    return tmp_path


def files(runs: Path) -> dict[str, bytes]:
    """Everything in the folder of the scores, parts included."""
    folder = runs / "trial" / "scores"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def work_of(runs: Path, root: Path) -> Workload:
    exports = inspect_exports(StudyFolder(runs, "trial"))[0]
    plan = study_plan(StudyFolder(runs, "trial"), exports[0], ScoreOptions(root, BENCHMARKS, SCORING))
    return Workload([(plan, [ScoreJob(export, "fp32") for export in exports])])


@pytest.fixture(scope="module")
def local_cluster() -> Iterator[None]:
    with cluster(2):
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import a test
        yield


@pytest.mark.usefixtures("local_cluster")
@pytest.mark.parametrize(
    ("num_workers", "unit_work"),
    [(2, UNIT_WORK), pytest.param(1, UNIT_WORK, marks=pytest.mark.slow), pytest.param(2, None, marks=pytest.mark.slow)],
)
def test_actors_write_the_same_bytes_as_one_process(
    num_workers: int, unit_work: float | None, runs: Path, benchmark_root: Path
) -> None:
    alone = score_study(
        StudyFolder(runs, "trial"), ScoreOptions(documents_root=benchmark_root, scoring=SCORING, use_ray=False)
    )
    expected = files(runs)
    shutil.rmtree(runs / "trial" / "scores")
    seen: list[ScoringProgress] = []
    summary = score_study(
        StudyFolder(runs, "trial"),
        ScoreOptions(
            documents_root=benchmark_root,
            scoring=SCORING,
            num_workers=num_workers,
            unit_work=unit_work,
            progress=seen.append,
        ),
    )
    assert alone.scored == summary.scored == NUM_CHECKPOINTS == len(expected)
    assert alone.counts == summary.counts and seen[-1].num_tokens == summary.counts.tokens
    assert sorted({progress.done for progress in seen}) == list(range(NUM_CHECKPOINTS + 1))
    assert (len(seen) > 40) == (unit_work is not None)
    assert files(runs) == expected


@pytest.mark.slow
@pytest.mark.usefixtures("local_cluster")
def test_a_unit_that_kills_its_workers_is_named_and_the_rest_is_scored(runs: Path, benchmark_root: Path) -> None:
    said: list[str] = []
    steps = list(
        score_on_ray(work_of(runs, benchmark_root), said.append, num_workers=2, unit_work=UNIT_WORK, worker=Poisoned)
    )
    (failed,) = (step for step in steps if step.error)
    assert failed.job.checkpoint.run.seed == 1 and str(failed.job.checkpoint.folder) in str(failed.error)
    assert f"given up: {DEATHS} workers died over it (score of batches 3 to " in str(failed.error)
    assert len(said) == DEATHS and all("a worker died" in line for line in said)
    scored = [name for name in files(runs) if name.endswith(".parquet")]
    assert len(scored) == NUM_CHECKPOINTS - 1 and not any("seed1/" in name for name in scored)


@pytest.mark.slow
@pytest.mark.usefixtures("local_cluster")
def test_workers_that_do_not_start_end_the_run_with_the_reason(runs: Path, benchmark_root: Path) -> None:
    with pytest.raises(ResourceError, match=r"no worker starts(.|\n)*a package is missing here"):
        list(score_on_ray(work_of(runs, benchmark_root), print, num_workers=1, worker=Stillborn))


@pytest.mark.slow
@pytest.mark.usefixtures("local_cluster")
def test_a_full_cluster_is_waited_for(runs: Path, benchmark_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "PATIENCE_S", 0.5)
    holder = ray.remote(Worker).options(num_cpus=2).remote()
    ray.get(holder.host.remote())
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        ray.kill(holder)  # the cluster has room again

    steps: list[Step] = list(score_on_ray(work_of(runs, benchmark_root), say, num_workers=1))
    assert said and "waiting for a worker: none of 1 actors (1 CPU each) has a place yet" in said[0]
    assert sum(step.finished for step in steps) == NUM_CHECKPOINTS


@pytest.mark.slow
@pytest.mark.usefixtures("local_cluster")
def test_a_corrupt_checkpoint_on_an_actor_is_a_user_error(runs: Path, benchmark_root: Path) -> None:
    bad = inspect_exports(StudyFolder(runs, "trial"))[0][2].folder
    (bad / "model.safetensors").write_bytes(b"half a file")
    with pytest.raises(ArtifactError, match="1 of 4 checkpoints were not scored") as error:
        score_study(
            StudyFolder(runs, "trial"), ScoreOptions(documents_root=benchmark_root, scoring=SCORING, num_workers=2)
        )
    assert str(bad) in str(error.value)
    assert len(files(runs)) == NUM_CHECKPOINTS - 1


@pytest.mark.slow
@pytest.mark.usefixtures("local_cluster")
def test_a_model_that_overflows_on_an_actor_is_named(runs: Path, benchmark_root: Path) -> None:
    """Its weights are finite, its log-probabilities are not: the others are scored, and nothing of it is kept."""
    from safetensors.torch import load_file, save_file

    bad = inspect_exports(StudyFolder(runs, "trial"))[0][2].folder
    weights = load_file(bad / "model.safetensors")
    large = {name: weight * 300 if "mlp" in name else weight for name, weight in weights.items()}
    save_file(large, bad / "model.safetensors", metadata={"format": "pt"})
    about = read_json(bad / "export.json")
    write_json(bad / "export.json", about | {"checkpoint": sha256_files([bad / "model.safetensors"])})
    scoring = SCORING.model_copy(update={"precision": "fp16"})
    options: dict[str, Any] = {"documents_root": benchmark_root, "scoring": scoring, "unit_work": UNIT_WORK}
    with pytest.raises(ArtifactError, match="1 of 4 checkpoints were not scored") as error:
        score_study(StudyFolder(runs, "trial"), ScoreOptions(num_workers=2, **options))
    assert f"{bad}: " in str(error.value) and "are NaN or infinite in fp16; none is written" in str(error.value)
    assert len(files(runs)) == NUM_CHECKPOINTS - 1 and not any("seed2" in name for name in files(runs))


@pytest.mark.slow
@pytest.mark.usefixtures("local_cluster")
def test_a_full_disk_on_an_actor_ends_the_run(runs: Path, benchmark_root: Path) -> None:
    with pytest.raises(ResourceError, match=r"\.part: cannot be written \(No space left on device\)"):
        list(
            score_on_ray(work_of(runs, benchmark_root), print, num_workers=1, unit_work=UNIT_WORK, worker=WithoutSpace)
        )
    assert len(files(runs)) == WithoutSpace.FILES
    score_study(
        StudyFolder(runs, "trial"),
        ScoreOptions(documents_root=benchmark_root, scoring=SCORING, use_ray=False, unit_work=UNIT_WORK),
    )
    assert len(files(runs)) == NUM_CHECKPOINTS


@pytest.mark.usefixtures("local_cluster")
@pytest.mark.parametrize("share", [0, -0.5, 1.5])
def test_a_worker_uses_a_part_of_a_gpu_or_whole_ones(share: float, runs: Path, benchmark_root: Path) -> None:
    with pytest.raises(ConfigError, match="GPUs for a worker"):
        list(score_on_ray(work_of(runs, benchmark_root), print, gpus_per_worker=share))


@pytest.mark.usefixtures("local_cluster")
def test_the_cluster_started_here_has_no_dashboard() -> None:
    """Nobody on the network can submit code to it: no process of it serves the dashboard's pages and jobs."""
    mine = psutil.Process().children(recursive=True)
    assert any("raylet" in process.name() for process in mine)
    assert not ray._private.worker.get_dashboard_url()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["literal", "working directory"])
def test_ray_job_submit(form: str, runs: Path, benchmark_root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """`ray job submit ray_eval/score.py` on a cluster started in the project folder; elsewhere with --working-dir."""
    write_json(runs / "trial" / "study.json", {"documents_root": str(benchmark_root)})
    literal = form == "literal"
    script = ["ray_eval/score.py"] if literal else ["--working-dir", ".", "--", "python", "ray_eval/score.py"]
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with head_node(PROJECT_ROOT if literal else elsewhere, elsewhere, {"MAGIC_RUNS": str(runs)}) as head:
        done = submitted(script, head)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert f"{NUM_CHECKPOINTS} checkpoints scored" in done.stdout
    assert len(files(runs)) == NUM_CHECKPOINTS
