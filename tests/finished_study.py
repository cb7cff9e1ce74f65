"""A finished study of the tiny one's shape in which nothing was trained: every file is written by hand, in a second.

Weights and checkpoints are a few bytes; configs, records and score files are real ones.
"""

from __future__ import annotations

import json
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tiny_study import write_study

from configs import load as config_files
from configs.artifacts import MANIFEST, describe_file, fingerprint, read_json, sha256_file, write_json, write_text
from configs.layout import StudyFolder
from configs.load import load_benchmarks, load_study
from configs.schema import StudyConfig
from configs.workflow.records.leases import LOCK
from configs.workflow.records.products import Products
from configs.workflow.records.records import read_record, write_record
from configs.workflow.units import Unit, study_units
from mixtures.sources.identity import read_identities

sys.path.append(str(Path(__file__).parent / "analysis"))
from score_rows import Rows, benchmark_rows, write_rows

HOST = "alices-laptop"
COMMAND = "study.py run /home/alice/tiny_study.yaml --runs /home/alice/runs"
COMMIT = "1" * 40


@dataclass(frozen=True)
class Finished:
    runs: Path
    data: Path
    study: StudyConfig

    @property
    def study_folder(self) -> StudyFolder:
        return StudyFolder(self.runs, self.study.name)

    @property
    def folder(self) -> Path:
        return self.study_folder.path

    @property
    def products(self) -> Products:
        return Products(self.study_folder, self.data)

    @property
    def units(self) -> list[Unit]:
        return study_units(self.study, self.runs, read_identities(self.study, self.data / "microworld"))


def write_finished(root: Path, **overrides: object) -> Finished:
    """overrides: dotted ones of the study, e.g. mixtures=["V1P0"]."""
    root.mkdir(parents=True, exist_ok=True)
    study = load_study(write_study(root, steps=12), overrides)
    made = Finished(root / "runs", root / "data", study)
    config_files.save(study, made.folder / "study.yaml")
    write_json(made.folder / "study.json", {"documents_root": str(made.data / "microworld")})
    write_json(made.folder / "declared.json", {"learnable": {}})
    write_text(made.folder / LOCK, "")  # which nobody holds
    for unit in made.units:
        product = fingerprint(unit.name)
        if unit.kind in ("pretrain", "finetune", "score"):
            (_score if unit.kind == "score" else _train)(made, unit)
            product = made.products.product(unit)
        record(made, unit, product)
    return made


def record(made: Finished, unit: Unit, product: str) -> None:
    inputs = {name: found.product for name in unit.inputs if (found := read_record(made.folder, name))}
    about = {"started": "2026-11-28T10:00:00+00:00", "seconds": 1.5, "host": HOST}
    write_record(made.folder, unit, inputs, product, **about)
    write_text(made.folder / "units" / f"{unit.name}.log", f"at work in {made.folder}\n")


def _train(made: Finished, unit: Unit) -> None:
    assert unit.run is not None and unit.folder is not None
    run, config = unit.folder, unit.run.config
    config_files.save(config, run.path / "config.yaml")
    steps = [10, 12] if config.stage == "pt" else [10]
    hashes = {}
    for step in steps:
        kept = run.checkpoints / f"step-{step:07d}"
        write_text(kept / "__0_0.distcp", f"state of {run.name} {step}\n" * 9)
        write_json(kept / MANIFEST, {"step": step, "files": {"__0_0.distcp": describe_file(kept / "__0_0.distcp")}})
        export = run.export(step)
        write_text(export / "model.safetensors", f"weights of {run.name} {step}\n")
        hashes[step] = sha256_file(export / "model.safetensors")
        files = {"model.safetensors": {"bytes": (export / "model.safetensors").stat().st_size}}
        facts = {"checkpoint": hashes[step], "tokenizer_sha256": "7" * 64, "step": step, "tokens": step * 256}
        write_json(export / "export.json", {"version": 1, "files": files, **facts})
    source = {"sources": {"wikipedia": "5" * 64}, "blend": "b" * 64}
    parent = None
    if config.stage == "sft":
        before = run.study.run(run.scale, run.mixture, run.seed, "pt")
        source = {"sft": "6" * 64, "tokenizer": "7" * 64}
        parent = {"export": str(before.export(12)), "sha256": read_json(before.done)["export"]["12"]}
    lines = [{"step": s, "tokens": s * 256, "loss": 6 / s, "lr": 0.1, "time": 1e9} for s in range(1, steps[-1] + 1)]
    lines += [{"step": 12, "tokens": 3072, "validation": {"wikipedia": 3.5}}] if config.stage == "pt" else []
    write_text(run.metrics, "".join(f"{json.dumps(line)}\n" for line in lines))
    machine = {"python": "3.11.7", "packages": {"torch": "2.13.0"}, "hardware": "1 x NVIDIA H100", "processes": 1}
    origin = {"command": COMMAND, "git_commit": COMMIT, "data": source, "parent": parent}
    origin["manifests"] = {"tokens/tiny/wikipedia/manifest.json": "4" * 64}
    write_json(run.path / "provenance.json", {"version": 1, "inputs": fingerprint(run.name), **machine, **origin})
    done = {"step": steps[-1], "tokens": steps[-1] * 256, "inputs": fingerprint(run.name)}
    done["export"] = {str(step): sha for step, sha in hashes.items()}
    write_json(run.done, done)


def _score(made: Finished, unit: Unit) -> None:
    assert unit.folder is not None
    run = unit.folder
    done = read_json(run.done)
    step = unit.step or done["step"]
    key: dict[str, Any] = {**run.columns, "step": step}
    rows: Rows = []
    for b, spec in enumerate(load_benchmarks(made.study.benchmarks)):
        random = np.random.default_rng(zlib.crc32(f"{run.name} {step} {spec.slug}".encode()))
        key |= {"benchmark": spec.slug, "tokens": step * 256, "checkpoint": done["export"][str(step)]}
        rows += benchmark_rows(random, 0.3 + 0.1 * (zlib.crc32(run.mixture.encode()) % 7), 1.0, 8, b, **key)
    write_rows(run.score_file(run.export(step)), rows)
