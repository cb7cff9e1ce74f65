"""Runs of lm-evaluation-harness itself on given rows, with its own task files, model and sample files; offline."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TASK_FILES = {
    "hellaswag": "hellaswag/hellaswag",
    "piqa": "piqa/piqa",
    "siqa": "siqa/siqa",
    "commonsense_qa": "commonsense_qa/default",
    "winogrande": "winogrande/default",
    "arc_challenge": "arc/arc_challenge",
    "arc_easy": "arc/arc_easy",
    "sciq": "sciq/sciq",
    "openbookqa": "openbookqa/openbookqa",
    **{slug: f"super_glue/{slug}/default" for slug in ("copa", "boolq", "cb", "wic", "wsc", "multirc")},
    **{slug: f"glue/{slug}/default" for slug in ("mnli", "qnli", "rte", "qqp", "mrpc")},
}
"""Benchmark -> its task file, below the folder of lm_eval's tasks."""
Rows = Mapping[str, Sequence[Mapping[str, Any]]]
"""Rows of some benchmarks, by slug."""


def evaluate(export: Path, rows: Rows, softmax_dtype: str = "float32", **options: Any) -> dict[str, Any]:
    """What the harness's `simple_evaluate` gives for an export, with its own model for transformers, in fp32.

    softmax_dtype: of its log-probabilities and their sums.
    """
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    return simple_evaluate(
        model="hf",
        model_args={"pretrained": str(export), "dtype": "float32", "softmax_dtype": softmax_dtype},
        device="cpu",
        batch_size=16,
        tasks=[_task(slug, benchmark_rows) for slug, benchmark_rows in rows.items()],
        bootstrap_iters=2,
        task_manager=TaskManager(include_defaults=False),
        **options,
    )


def run_harness(export: Path, rows: Rows, output: Path, **options: Any) -> tuple[Path, dict[str, Any]]:
    """`evaluate`, written to `output` as its command does; the harness's folder of the model in it, and its results."""
    from lm_eval.loggers import EvaluationTracker

    tracker = EvaluationTracker(output_path=str(output))
    results = evaluate(export, rows, evaluation_tracker=tracker, **options)
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    for task in results["configs"]:
        tracker.save_results_samples(task_name=task, samples=samples[task])
    (folder,) = output.iterdir()
    return folder, json.loads(next(folder.glob("results_*.json")).read_text())


def task_config(slug: str) -> dict[str, Any]:
    """The harness's own definition of a benchmark."""
    import lm_eval.tasks
    from lm_eval.tasks._yaml_loader import load_yaml

    config = load_yaml(Path(lm_eval.tasks.__file__).parent / f"{TASK_FILES[slug]}.yaml")
    return {key: value for key, value in config.items() if key not in ("tag", "group")}


def _task(slug: str, rows: Sequence[Mapping[str, Any]]) -> Any:
    import datasets
    from lm_eval.api.task import ConfigurableTask

    if slug == "boolq":  # the harness reads super_glue's columns, ours are google/boolq's
        rows = [{k: v for k, v in row.items() if k != "answer"} | {"label": int(row["answer"])} for row in rows]
    config = task_config(slug)
    splits = {config[key] for key in ("training_split", "validation_split", "test_split") if config.get(key)}
    held = datasets.DatasetDict({split: datasets.Dataset.from_list(list(rows)) for split in splits})
    return ConfigurableTask(config=config | {"custom_dataset": lambda **_: held})
