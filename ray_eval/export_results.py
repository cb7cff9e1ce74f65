"""Our scores as the results JSON of lm-evaluation-harness, for whatever reads that.

In: score files. Out: <out>/<checkpoint>/results_<date>.json for each checkpoint and prompt variant, in the layout and
keys of lm-eval 0.4.13: `acc,none` and its standard error, `acc_norm,none` and `f1,none` where lm-eval reports them,
`n-samples`, `configs`, `versions`, ... For MultiRC `acc,none` is lm-eval's figure, against its inverted gold, and
`acc_true_gold,none` the accuracy itself. Standard errors of f1, which lm-eval bootstraps, are "N/A".
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.errors import ArtifactError, user_errors
from configs.layout import RunFolder, StudyFolder, runs_root

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

EXAMPLES = """\
examples:
  python -m ray_eval.export_results --study mini --out lm_eval_results       every checkpoint of a study
  python -m ray_eval.export_results runs/mini/scores/mini_s/V1P0/seed0/pt/step-0000585.parquet --out lm_eval_results
"""
PLACE = ("study", "scale", "mixture", "seed", "stage", "recipe", "step", "tokens", "checkpoint")
"""Columns that are the same in all rows of a file, and together in no other file."""
CHECKPOINT = (*PLACE, "variant")
PLAIN = "lm_eval/0shot"
"""The variant that needs no name in a folder: lm-eval's own prompts."""

# What lm-eval 0.4.13's task files say (configs/benchmarks/*.yaml names the task).
ACC_NORM = ("hellaswag", "piqa", "arc_challenge", "arc_easy", "sciq", "openbookqa")
F1 = ("qqp", "mrpc", "cb")
VERSIONS: dict[str, float | str] = {"siqa": 0.0, "commonsense_qa": "Yaml", "boolq": 2.0, "qqp": 2.0, "multirc": 2.0}
"""Of the tasks whose version is not 1.0; the harness writes Yaml for one that has none."""


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ray_eval.export_results",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("paths", metavar="PATH", nargs="*", type=Path, help="score files, or folders of them (default: --study)")
    add("--study", metavar="NAME", help="every score file of this study")
    add("--runs", metavar="DIR", help="folder of the studies (default: MAGIC_RUNS, else ./runs)")
    add("--out", metavar="DIR", type=Path, required=True, help="folder that gets one folder a checkpoint")
    given = parser.parse_args(arguments)
    if bool(given.paths) == bool(given.study):
        parser.error("name score files, or a study with --study")
    return given


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    given = parse(arguments)
    for path in export_results(given.paths or [StudyFolder(runs_root(given.runs), given.study).scores], given.out):
        print(path)


def export_results(paths: Sequence[Path], out: Path) -> list[Path]:
    """Write one results JSON for each checkpoint and variant in score files or folders of them; returns their paths.

    The date in a name is that of the newest score file read, so that exporting again overwrites.
    Raises ArtifactError where there is no score file, or one is damaged.
    """
    import pyarrow as pa

    from configs.artifacts import write_json
    from ray_eval.results import metadata_of, read_scores

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
    import pyarrow.compute as pc

    from configs.load import BENCHMARKS, load_benchmark

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
    import numpy as np

    logprob = _padded(rows["logprob_sum"], -np.inf)
    gold = rows["gold"].to_numpy()
    chosen = logprob.argmax(axis=1)  # ties: the first, as in lm-eval
    metrics = {"acc": _mean(chosen == (1 - gold if slug == "multirc" else gold))}
    if slug == "multirc":
        metrics["acc_true_gold"] = _mean(chosen == gold)
    if slug in ACC_NORM:
        per_character = logprob / _padded(rows["num_chars"], 1.0)
        metrics["acc_norm"] = _mean(per_character.argmax(axis=1) == gold)
    if slug in F1:
        classes = (0, 1, 2) if slug == "cb" else (1,)
        metrics["f1"] = float(np.mean([_f1(chosen == c, gold == c) for c in classes])), "N/A"
    return metrics


def _padded(column: pa.ChunkedArray, fill: float) -> np.ndarray:
    """A list column as float64 [rows, longest list]; short rows are filled."""
    import numpy as np
    import pyarrow.compute as pc

    length = pc.list_value_length(column).to_numpy()
    out = np.full((len(length), int(length.max())), fill)
    out[np.arange(out.shape[1]) < length[:, None]] = pc.list_flatten(column).to_numpy()
    return out


def _mean(right: np.ndarray) -> tuple[float, float | str]:
    """Share and its standard error, sample standard deviation / sqrt(n)."""
    n = len(right)
    return float(right.mean()), float(right.std(ddof=1) / n**0.5) if n > 1 else "N/A"


def _f1(predicted: np.ndarray, true: np.ndarray) -> float:
    """2 TP / (2 TP + FP + FN); 0 where nothing is predicted or true."""
    both = int((predicted & true).sum())
    total = int(predicted.sum() + true.sum())
    return 2 * both / total if total else 0.0


if __name__ == "__main__":
    main()
