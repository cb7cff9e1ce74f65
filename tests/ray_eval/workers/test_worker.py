"""A warm worker: weights that are copied in place, read ahead and verified; and terms on which workers may share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from random_exports import random_export

from configs.artifacts import read_json, sha256_files, write_json
from configs.errors import ArtifactError, ConfigError, ResourceError
from configs.layout import StudyFolder
from configs.load import load_benchmarks
from mixtures.tokens.tokenizer import Tokenizer
from ray_eval.benchmarks import load_examples
from ray_eval.checkpoints.checkpoint import read_weights
from ray_eval.checkpoints.exports import read_export
from ray_eval.models import weights as weights_module
from ray_eval.models.llama import Llama
from ray_eval.models.weights import Weights
from ray_eval.plans.plan import Plan, compile_plan
from ray_eval.workers import worker as worker_module
from ray_eval.workers.engine import gpus_to_share
from ray_eval.workers.task_queue import Task
from ray_eval.workers.worker import Order, Reply, ScoreJob, Worker

ExportMaker = Callable[..., Path]
LARGER = {"num_hidden_layers": 3}


@pytest.fixture(scope="module")
def plan(tokenizer: Tokenizer, benchmark_root: Path) -> Plan:
    pairs = [(spec, load_examples(spec, benchmark_root)) for spec in load_benchmarks(["piqa", "boolq", "wic"])]
    return compile_plan(pairs, tokenizer, 256)


def job(make_export: ExportMaker, runs: Path, seed: int, precision: str = "fp32", **shape: Any) -> ScoreJob:
    folder = make_export(StudyFolder(runs, "trial").run("mini_s", "V1P0", seed, "pt").export(1), seed=seed, **shape)
    return ScoreJob(read_export(folder), precision)


def finish(worker: Worker, plan: Plan, job: ScoreJob, coming: ScoreJob | None = None) -> bytes:
    """Score a whole checkpoint; its score file."""
    reply = worker.do(plan, Order(Task("finish", 0), job, None, coming))
    if reply.error:
        raise reply.error
    content = job.checkpoint.score_file.read_bytes()
    job.checkpoint.score_file.unlink()
    return content


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_warm_worker_scores_like_a_fresh_one(
    precision: str, plan: Plan, make_export: ExportMaker, tmp_path: Path
) -> None:
    shapes: list[dict[str, Any]] = [{}, {}, LARGER, LARGER, {"tie_word_embeddings": False}, {}, {"rms_norm_eps": 0.1}]
    jobs = [job(make_export, tmp_path, seed, precision, **shape) for seed, shape in enumerate(shapes)]
    warm = Worker()
    for one, following in zip(jobs, [*jobs[1:], None], strict=True):
        assert finish(warm, plan, one, following) == finish(Worker(), plan, one)


def assert_same_weights(one: Llama, other: Llama) -> None:
    a, b = one.places(), other.places()
    assert a.keys() == b.keys() and all(torch.equal(a[name][1][0], b[name][1][0]) for name in a)


def test_equal_shapes_share_their_memory(plan: Plan, make_export: ExportMaker, tmp_path: Path) -> None:
    first, second, other = (job(make_export, tmp_path, i, **shape) for i, shape in enumerate([{}, {}, LARGER]))
    model = Llama(first.checkpoint.folder)
    before = {name: place.data_ptr() for name, (_, (place,)) in model.places().items()}
    assert model.fits(second.checkpoint.folder, torch.float32)
    assert not model.fits(second.checkpoint.folder, torch.bfloat16)
    assert not model.fits(other.checkpoint.folder, torch.float32)
    model.load(Weights(second.checkpoint.folder))
    assert {name: place.data_ptr() for name, (_, (place,)) in model.places().items()} == before
    assert_same_weights(model, Llama(second.checkpoint.folder))


@pytest.mark.parametrize("on_disk", [False, True], ids=["in memory", "in a temporary file"])
def test_what_is_scored_are_the_bytes_that_were_hashed(
    make_export: ExportMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_disk: bool
) -> None:
    monkeypatch.setattr(weights_module, "ON_DISK", on_disk or weights_module.ON_DISK)
    checkpoint = job(make_export, tmp_path, 0).checkpoint
    path = checkpoint.folder / "model.safetensors"
    weights = read_weights(checkpoint)
    assert weights.sha256 == sha256_files([path])
    content = path.read_bytes()
    with path.open("r+b") as file:  # in place, as a writer that does not rename
        file.write(content[:1000] + bytes(len(content) - 1000))
    shape = (420, 32)
    assert weights.get("model.embed_tokens.weight", shape).abs().min() > 0
    with pytest.raises(ArtifactError, match="altered"):
        read_weights(checkpoint)


def test_weights_of_many_files(tokenizer: Tokenizer, tmp_path: Path) -> None:
    from transformers import LlamaForCausalLM

    whole = random_export(tmp_path / "whole", tokenizer)
    LlamaForCausalLM.from_pretrained(whole).save_pretrained(tmp_path / "cut", max_shard_size="20KB")
    assert len(list((tmp_path / "cut").glob("*.safetensors"))) > 3
    assert_same_weights(Llama(whole), Llama(tmp_path / "cut"))
    assert Weights(tmp_path / "cut").sha256 == sha256_files(list((tmp_path / "cut").glob("*.safetensors")))


def test_a_checkpoint_is_read_ahead(plan: Plan, make_export: ExportMaker, tmp_path: Path) -> None:
    first, second = job(make_export, tmp_path, 0), job(make_export, tmp_path, 1)
    expected = finish(Worker(), plan, second)
    worker = Worker()
    finish(worker, plan, first, coming=second)
    worker._reader.shutdown(wait=True)
    for path in second.checkpoint.folder.glob("*.safetensors"):
        path.unlink()
    assert finish(worker, plan, second) == expected


def test_after_a_bad_checkpoint_the_next_is_scored(plan: Plan, make_export: ExportMaker, tmp_path: Path) -> None:
    """Its weights were copied over those of another before its NaN was met."""
    from safetensors.torch import load_file, save_file

    good, bad = job(make_export, tmp_path, 0), job(make_export, tmp_path, 1)
    expected = finish(Worker(), plan, good)
    path = bad.checkpoint.folder / "model.safetensors"
    weights = load_file(path)
    weights["model.layers.1.mlp.down_proj.weight"][2, 3] = float("nan")
    save_file(weights, path)
    export_json = bad.checkpoint.folder / "export.json"
    write_json(export_json, read_json(export_json) | {"checkpoint": sha256_files([path])})
    bad = ScoreJob(read_export(bad.checkpoint.folder), "fp32")
    worker = Worker()
    assert finish(worker, plan, good, coming=bad) == expected
    for _ in range(2):
        with pytest.raises(ArtifactError, match=r"model\.layers\.1\.mlp\.down_proj\.weight holds 1 NaN"):
            finish(worker, plan, bad)
    assert finish(worker, plan, good) == expected


def test_a_worker_on_other_terms_does_nothing(
    plan: Plan, make_export: ExportMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = job(make_export, tmp_path, 0)
    here = Worker().do(plan, Order(Task("open", 0), one, None, None))
    assert len(here.units) == 1 and here.missing == here.units
    monkeypatch.setattr(worker_module, "_code", lambda: "of another version")
    elsewhere = Worker().do(plan, Order(Task("finish", 0), one, here.identity, None))
    assert elsewhere == Reply(elsewhere.identity) and elsewhere.identity not in ("", here.identity)
    assert not one.checkpoint.score_file.exists()


def test_a_gpu_that_is_too_small_is_named(
    plan: Plan, make_export: ExportMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = job(make_export, tmp_path, 0)

    def too_large(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(Llama, "load", too_large)
    with pytest.raises(ResourceError, match="CUDA out of memory") as error:
        finish(Worker(), plan, one)
    assert str(one.checkpoint.folder) in str(error.value) and "--gpus-per-worker" in str(error.value)


def test_more_gpus_than_are_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ResourceError, match="2 GPUs are to share a model, 1 are here"):
        Worker(None, 2)


def test_gpus_to_share() -> None:
    assert [gpus_to_share(count) for count in (0.25, 1, 1.0, 2, 4.0)] == [1, 1, 1, 2, 4]
    for count in (0, -1, 1.5):
        with pytest.raises(ConfigError, match="GPUs for a worker"):
            gpus_to_share(count)
