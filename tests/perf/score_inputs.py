"""What both scorers are given: rows, models and their tokenizer, in one work folder.

In: real benchmark rows and corpora. Out: <work>/<workload>/ with benchmarks/<slug>/<split>.parquet, exports of random
Llamas below runs/, and tasks/*.yaml, which lead lm-evaluation-harness's own task files to the same rows.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from configs.artifacts import write_text
from configs.layout import StudyFolder
from configs.load import BENCHMARKS, load_benchmark
from mixtures.sources.benchmark_rows import sample_rows
from mixtures.tokens.new_tokenizer import train_tokenizer
from mixtures.tokens.tokenizer import Tokenizer

STUDY = "speed"
SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 16,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
    "initializer_range": 0.02,
}
SUITE = tuple(BENCHMARKS)


@dataclass(frozen=True)
class Workload:
    """Some rows to score, and how many times faster than the harness we mean to be."""

    benchmarks: tuple[str, ...]
    items: int
    """Of each benchmark; all of those that have fewer."""
    vocab: int
    checkpoints: int = 1
    evaluate_goal: float | None = None
    process_goal: float | None = None
    rounds: int = 3

    @property
    def kinds(self) -> list[str]:
        """What there is a goal for."""
        goals = {"evaluate": self.evaluate_goal, "process": self.process_goal}
        return [kind for kind, goal in goals.items() if goal]


WORKLOADS = {
    "HellaSwag": Workload(("hellaswag",), 2000, 8192, evaluate_goal=7),
    "BoolQ": Workload(("boolq",), 3000, 8192, evaluate_goal=6),
    "HellaSwag, large vocabulary": Workload(("hellaswag",), 100, 100_864, evaluate_goal=11, process_goal=10),
    "BoolQ, large vocabulary": Workload(("boolq",), 100, 100_864, evaluate_goal=60, process_goal=25),
    "suite": Workload(SUITE, 300, 8192, evaluate_goal=8),
    "nine checkpoints": Workload(SUITE, 300, 8192, checkpoints=9, evaluate_goal=15, rounds=1),
}


@dataclass(frozen=True)
class Inputs:
    workload: Workload
    root: Path
    """Folder that holds benchmarks/."""
    exports: tuple[Path, ...]

    @property
    def bytecode(self) -> Path:
        return self.root.parent / "bytecode"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def tasks(self) -> Path:
        """Folder of the harness's task files, one for each benchmark."""
        return self.root / "tasks"

    def task(self, slug: str) -> str:
        return f"local_{slug}"


def prepare(workload: Workload, name: str, data_root: Path, work: Path) -> Inputs:
    """Everything below <work>; tokenizers that are there already are used again."""
    from random_exports import random_export

    folder = work / name.replace(", ", "-").replace(" ", "-")
    shutil.rmtree(folder, ignore_errors=True)
    for slug in workload.benchmarks:
        _write_rows(slug, workload.items, data_root, folder)
    tokenizer = _tokenizer(workload.vocab, data_root, work / "tokenizers" / str(workload.vocab))
    exports = []
    for seed in range(workload.checkpoints):
        export = StudyFolder(folder / "runs", STUDY).run("tiny", "random", seed, "pt").export(1)
        exports.append(random_export(export, tokenizer, seed=seed, vocab_size=workload.vocab, **SHAPE))
    return Inputs(workload, folder, tuple(exports))


def _write_rows(slug: str, items: int, data_root: Path, folder: Path) -> None:
    from harness_runs import TASK_FILES, task_config

    name = f"benchmarks/{slug}/{load_benchmark(slug).split_in(local=True)}.parquet"
    rows = pq.read_table(data_root / name)
    rows = rows.take(sample_rows(rows.num_rows, items, slug))
    if slug == "boolq":  # the harness reads super_glue's columns, ours are google/boolq's
        rows = rows.append_column("label", rows["answer"].cast(pa.int64()))
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, path)

    import datasets
    import lm_eval.tasks

    config = task_config(slug)
    split = config.get("test_split") or config["validation_split"]
    places = {"data_files": {split: str(path)}, "cache_dir": str(folder / "datasets")}
    datasets.load_dataset("parquet", **places)  # converted once and kept, as for whoever has used them before
    task = {
        "include": str(Path(lm_eval.tasks.__file__).parent / f"{TASK_FILES[slug]}.yaml"),
        "task": f"local_{slug}",
        "dataset_path": "parquet",
        "dataset_name": None,
        "dataset_kwargs": places,
        "training_split": None,
        "validation_split": split,
        "test_split": None,
        "fewshot_split": split,
    }
    write_text(folder / "tasks" / f"{slug}.yaml", yaml.safe_dump(task))


def _tokenizer(vocab: int, data_root: Path, folder: Path) -> Tokenizer:
    if not (folder / "tokenizer.json").is_file():
        print(f"training a tokenizer of {vocab:,} entries", flush=True)
        paths = sorted((data_root / "corpora").glob("*/*.parquet"))
        with_text = [path for path in paths if "text" in pq.read_schema(path).names]
        # A sixth is enough for a small vocabulary.
        texts = (text for path in with_text for text in pq.read_table(path, columns=["text"])["text"].to_pylist())
        some = (text for number, text in enumerate(texts) if vocab > 50_000 or number % 6 == 0)
        train_tokenizer(some, vocab, folder, {})
    return Tokenizer.load(folder)
