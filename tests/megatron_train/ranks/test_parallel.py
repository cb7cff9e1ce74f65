"""Tensor and data parallelism under torchrun (gloo) against one process."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from train_runs import PROJECT, TINY, command, environment, free_port, launch, node_command, read_metrics

from configs.artifacts import sha256_files
from megatron_train.checkpoints.checkpoint import complete

pytestmark = pytest.mark.slow

REPEAT = ["data.exhaustion=repeat", "data.max_epochs=20"]  # the tiny sources are gone over more than once


def run(data: Path, runs: Path, *overrides: str, processes: int = 1) -> Path:
    options = ["--config", "mini_s.yaml", "--study", "t", "--data", str(data), "--runs", str(runs)]
    launch(
        "pretrain.py",
        *options,
        *TINY,
        *REPEAT,
        "budget.steps=50",
        "checkpoint_tokens=[2560]",
        *overrides,
        processes=processes,
    )
    return runs / "t" / "mini_s" / "V1P0" / "seed0" / "pt"


@pytest.fixture(scope="module")
def one(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(data, tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def tensor2(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(data, tmp_path_factory.mktemp("tensor2"), "parallel.tensor=2", processes=2)


@pytest.fixture(scope="module")
def data2(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(data, tmp_path_factory.mktemp("data2"), processes=2)


def compare(left: Path, right: Path) -> None:
    """Losses within 1e-5, the rest of the metrics alike."""
    a, b = read_metrics(left), read_metrics(right)
    assert len(a) == len(b) == 51
    for x, y in zip(a, b, strict=True):
        assert (x["step"], x["tokens"]) == (y["step"], y["tokens"])
        if "loss" in x:
            assert x["loss"] == pytest.approx(y["loss"], abs=1e-5)
            assert x["grad_norm"] == pytest.approx(y["grad_norm"], rel=1e-3)
        else:
            assert x["validation"] == pytest.approx(y["validation"], abs=1e-5)
    assert a[0]["loss"] - a[49]["loss"] > 1, "training must have moved"


def test_two_tensor_parallel_ranks_train_like_one(one: Path, tensor2: Path) -> None:
    compare(one, tensor2)


def test_two_data_parallel_ranks_train_like_one(one: Path, data2: Path) -> None:
    compare(one, data2)


def test_four_ranks_train_like_one(one: Path, data: Path, tmp_path: Path) -> None:
    """Tensor and data parallelism together, two by two; transformers finds the same model in what they leave."""
    compare(one, run(data, tmp_path, "parallel.tensor=2", "--verify", processes=4))


def test_checkpoints_reshard(one: Path, tensor2: Path, data2: Path, data: Path, tmp_path: Path) -> None:
    """Weights and moments: with lost moments the losses after step 20 would differ in the second digit."""
    for name, source, overrides, processes in (
        ("tensor 2 to one", tensor2, [], 1),
        ("tensor 2 to data 2", tensor2, [], 2),
        ("one to tensor 2", one, ["parallel.tensor=2"], 2),
        ("data 2 to one", data2, [], 1),
    ):
        runs = tmp_path / name
        shutil.copytree(source.parents[4], runs)
        copy = runs / source.relative_to(source.parents[4])
        # As if killed after the milestone at step 20: later resume points are gone with the end of the run.
        (copy / "DONE").unlink()
        for made in ("checkpoints", "export"):
            shutil.rmtree(copy / made / "step-0000050")
        milestone = sha256_files(list((copy / "checkpoints" / "step-0000020").iterdir()))
        resumed = run(data, runs, *overrides, processes=processes)
        compare(one, resumed)
        assert sha256_files(list((copy / "checkpoints" / "step-0000020").iterdir())) == milestone, "was not resumed"


def test_compiled_tensor_parallel_ranks_train_like_one(one: Path, data: Path, tmp_path: Path) -> None:
    compare(one, run(data, tmp_path, "parallel.tensor=2", "compile=true", processes=2))


def test_two_nodes_meet_by_rendezvous(one: Path, data: Path, tmp_path: Path) -> None:
    """Two torchruns of one process each, as on two machines."""
    options = ["--config", "mini_s.yaml", "--study", "t", "--data", str(data), "--runs", str(tmp_path), *TINY, *REPEAT]
    options += ["budget.steps=50", "checkpoint_tokens=[2560]"]
    port = free_port()
    nodes = [
        subprocess.Popen(
            node_command("pretrain.py", *options, nodes=2, port=port),
            cwd=PROJECT,
            env=environment(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for _ in range(2)
    ]
    outputs = [node.communicate(timeout=300)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs
    assert "running on   2 processes x " in "".join(outputs)
    compare(one, tmp_path / "t" / "mini_s" / "V1P0" / "seed0" / "pt")


def test_only_the_main_rank_speaks(tmp_path: Path) -> None:
    done = launch("pretrain.py", "--config", "configs/1b.yaml", "--data", str(tmp_path), processes=2, expect=1)
    assert done.stderr.count("cannot start; missing:") == 1
    assert done.stdout.count("FLOPs/token") == 1


def test_torchrun_passes_the_notice_on(data: Path, tmp_path: Path) -> None:
    """SIGTERM to torchrun: both ranks save at the same step, and the same command goes on."""
    options = ["--config", "mini_s.yaml", "--study", "t", "--data", str(data), "--runs", str(tmp_path), *TINY]
    options += [*REPEAT, "checkpoint_tokens=[2560]", "log_every_steps=4", "budget.steps=200"]
    process = subprocess.Popen(
        command("pretrain.py", *options, processes=2),
        cwd=PROJECT,
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if line.startswith("step  12/"):
            process.send_signal(signal.SIGTERM)
            break
    seen += process.stdout.read()
    assert process.wait(120) != 0
    assert "SIGTERM came; saved after step" in seen, seen
    run_folder = tmp_path / "t" / "mini_s" / "V1P0" / "seed0" / "pt"
    saved = max(step for step, _ in complete(run_folder / "checkpoints"))
    assert f"saved after step {saved} of 200" in seen
    again = launch("pretrain.py", *options, processes=2)
    assert f"resuming after step {saved}" in again.stdout
    steps = [line["step"] for line in read_metrics(run_folder) if "loss" in line]
    assert steps == list(range(1, 201))
