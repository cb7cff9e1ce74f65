"""Our scores in the layout and keys of lm-evaluation-harness 0.4.13.

In: score files. Out: one results JSON for each checkpoint and prompt variant: `acc,none` and its standard error,
`acc_norm,none` and `f1,none` where lm-eval reports them, `n-samples`, `configs`, `versions`, ... For MultiRC `acc,none`
is lm-eval's figure, against its inverted gold, and `acc_true_gold,none` the accuracy itself. Standard errors of f1,
which lm-eval bootstraps, are "N/A".
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from configs.artifacts import write_json
from configs.errors import ArtifactError
from configs.layout import RunFolder, StudyFolder
from configs.load import BENCHMARKS, load_benchmark
from ray_eval.results import metadata_of, padded, read_scores

PLACE = ("study", "scale", "mixture", "seed", "stage", "recipe", "step", "tokens", "checkpoint")
"""Columns that are the same in all rows of a file, and together in no other file."""
CHECKPOINT = (*PLACE, "variant")
PLAIN = "lm_eval/0shot"
"""The variant that needs no name in a folder: lm-eval's own prompts."""

# What lm-eval 0.4.13's task files say (configs/benchmarks/*.yaml names the task).
ACC_NORM = ("hellaswag", "piqa", "arc_challenge", "arc_easy", "sciq", "openbookqa")
F1 = ("qqp", "mrpc", "cb")
VERSIONS: dict[str, float | str] = {"siqa": 0.0, "commonsense_qa": "Yaml", "boolq": 2.0, "qqp": 2.0, "multirc": 2.0}
"""Versions of the tasks whose version is not 1.0; the harness writes Yaml for a task without one."""


def export_results(paths: Sequence[Path], out: Path) -> list[Path]:
    """Write one results JSON for each checkpoint and variant in score files or folders of them; returns their paths.

    The date in a name is that of the newest score file read, so that exporting again overwrites.
    Raises ArtifactError where there is no score file, or one is damaged.
    """
    found = [f for path in paths for f in (path.rglob("*.parquet") if path.is_dir() else [path])]
    files = sorted({f.resolve(): f for f in found if not f.name.startswith(".")}.values())  # a link adds no rows
    if not files:
        hint = "score first: python ray_eval/score.py --help"
        raise ArtifactError("no score file", where=", ".join(map(str, paths)), hint=hint)
    tables = [read_scores(file) for file in files]
    metadata = {tuple(table[name][0].as_py() for name in PLACE): metadata_of(table) for table in tables}
    date = datetime.fromtimestamp(max(file.stat().st_mtime for file in files))
    whole = pa.concat_tables([table.replace_schema_metadata(None) for table in tables]).unify_dictionaries()
    written = []
    for rows in whole.select(CHECKPOINT).to_pandas().groupby(list(CHECKPOINT), observed=True).indices.values():
        results = results_of(whole.take(rows), metadata, date.timestamp())
        name = f"results_{date.isoformat().replace(':', '-')}.json"
        written.append(out / results["model_name_sanitized"] / name)
        write_json(written[-1], results)
    return written


def results_of(table: pa.Table, metadata: dict[tuple[Any, ...], dict[str, str]], date: float) -> dict[str, Any]:
    """The results JSON of one checkpoint and variant (`table`: its rows of any number of benchmarks)."""
    identity = {name: table[name][0].as_py() for name in CHECKPOINT}
    variant = identity["variant"]
    run = RunFolder.of_columns(StudyFolder(Path(), identity["study"]), identity)
    model = "/".join([str(run.path), f"step-{identity['step']:07d}", *([] if variant == PLAIN else [variant])])
    shots = re.search(r"(\d+)shot", variant)
    facts = metadata.get(tuple(identity[name] for name in PLACE), {})
    out: dict[str, Any] = {
        **{key: {} for key in ("results", "configs", "versions", "n-shot", "higher_is_better", "n-samples")},
        "group_subtasks": {},
        "config": {"model": "magic-correlations", "model_args": identity, "model_dtype": facts.get("dtype")},
        "date": date,
        "model_source": "magic-correlations",
        "model_name": model,
        "model_name_sanitized": re.sub(r'["<>:/|\\?*\[\]]+', "__", model),
    }
    present = set(table["benchmark"].unique().to_pylist())
    for slug in (slug for slug in BENCHMARKS if slug in present):
        spec, rows = load_benchmark(slug), table.filter(pc.equal(table["benchmark"], slug))
        task, version = spec.lm_eval_task, VERSIONS.get(slug, 1.0)
        split = rows["example_id"][0].as_py().split("/")[0]
        numbers = metrics_of(slug, rows)
        out["results"][task] = {"name": task, "alias": task, "sample_len": len(rows)}
        for metric, (value, stderr) in numbers.items():
            out["results"][task] |= {f"{metric},none": value, f"{metric}_stderr,none": stderr}
        out["configs"][task] = {
            "task": task,
            "dataset_path": spec.hub,
            "dataset_name": spec.config,
            "test_split" if split == "test" else "validation_split": split,
            "num_fewshot": int(shots[1]) if shots else None,
            "output_type": "multiple_choice",
            "metadata": {"version": version},
        }
        out["versions"][task] = version
        out["n-shot"][task] = out["configs"][task]["num_fewshot"]
        out["higher_is_better"][task] = dict.fromkeys(numbers, True)
        out["n-samples"][task] = {"original": spec.examples, "effective": len(rows)}
    return out


def metrics_of(slug: str, rows: pa.Table) -> dict[str, tuple[float, float | str]]:
    """Metric -> (value, standard error or "N/A"), as lm-eval's task of this benchmark reports them."""
    logprob = padded(rows, "logprob_sum", -np.inf)
    gold = rows["gold"].to_numpy()
    chosen = logprob.argmax(axis=1)  # ties: the first, as in lm-eval
    metrics = {"acc": mean_and_stderr(chosen == (1 - gold if slug == "multirc" else gold))}
    if slug == "multirc":
        metrics["acc_true_gold"] = mean_and_stderr(chosen == gold)
    if slug in ACC_NORM:
        per_character = logprob / padded(rows, "num_chars", 1.0)
        metrics["acc_norm"] = mean_and_stderr(per_character.argmax(axis=1) == gold)
    if slug in F1:
        classes = (0, 1, 2) if slug == "cb" else (1,)
        metrics["f1"] = float(np.mean([_f1(chosen == c, gold == c) for c in classes])), math.nan
    return {name: (value, "N/A" if math.isnan(stderr) else stderr) for name, (value, stderr) in metrics.items()}


def mean_and_stderr(right: np.ndarray) -> tuple[float, float]:
    """Share and its standard error, sample standard deviation / sqrt(n); NaN for one example."""
    n = len(right)
    return float(right.mean()), float(right.std(ddof=1) / n**0.5) if n > 1 else math.nan


def _f1(predicted: np.ndarray, true: np.ndarray) -> float:
    """2 TP / (2 TP + FP + FN); 0 where nothing is predicted or true."""
    both = int((predicted & true).sum())
    total = int(predicted.sum() + true.sum())
    return 2 * both / total if total else 0.0
