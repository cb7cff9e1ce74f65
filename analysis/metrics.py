"""Scores to metrics.parquet: one row per cell (checkpoint, benchmark, variant), metric and normalisation.

In: the rows of `analysis.scores`. Out: <runs>/<study>/metrics.parquet; this module alone writes it. Candidates of a
benchmark lie in one padded matrix [examples, candidates], cells are sums over rows: no Python loop over examples. What
cannot be derived (PMI without unconditional scores, per token without the candidates' tokens) has no row. Equal score
files give equal bytes.

    python -m analysis.metrics --runs runs --study mini
"""

from __future__ import annotations

import argparse
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.artifacts import atomic_file, fingerprint
from configs.errors import ArtifactError, user_errors
from configs.layout import metrics_file, runs_root
from configs.metrics import F1_BENCHMARKS, METRICS, NORMALISATIONS

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from analysis.scores import Scores

VERSION = "2"
KEYS = ("scale", "stage", "recipe", "mixture", "seed", "step", "tokens", "benchmark", "variant")
COLUMNS = (*KEYS, "metric", "normalisation", "value", "n", "stderr", "fingerprint")


def padded(column: Any, fill: float) -> np.ndarray:
    """A list column as float64 [rows, longest list]; short rows are filled."""
    import numpy as np
    import pyarrow.compute as pc

    length = pc.list_value_length(column).to_numpy()
    out = np.full((len(length), int(length.max())), fill)
    out[np.arange(out.shape[1]) < length[:, None]] = pc.list_flatten(column).to_numpy()
    return out


def select(score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The chosen candidate [rows] (ties: the lowest index) and whether the row was tied [rows]; score [rows, K]."""
    import numpy as np

    best = score.max(axis=1, keepdims=True)
    return np.argmax(score, axis=1), (score == best).sum(axis=1) > 1


def confidence(logprob: np.ndarray) -> np.ndarray:
    """Reading A, [rows]: softmax over the candidates at the selected one, the largest; logprob [rows, K], -inf pads."""
    import numpy as np

    return 1.0 / np.exp(logprob - logprob.max(axis=1, keepdims=True)).sum(axis=1)


def _benchmark_metrics(slug: str, rows: Any) -> Iterator[tuple[str, str, np.ndarray]]:
    """Yield (metric, normalisation, value of each example [rows]); cells average them, or add them up for ties."""
    import numpy as np

    from analysis import calibration as ca

    logprob, gold = padded(rows.column("logprob_sum"), -np.inf), rows.column("gold").to_numpy()
    every = np.arange(len(gold))
    candidates = np.isfinite(logprob).sum(axis=1)
    scores = {"sum": logprob}
    for name, column in (("char", "num_chars"), ("token", "num_tokens"), ("byte", "num_bytes")):
        if rows.column(column).null_count == 0:
            scores[name] = logprob / padded(rows.column(column), 1.0)
    if rows.column("logprob_unconditional").null_count == 0:
        scores["pmi"] = logprob - padded(rows.column("logprob_unconditional"), 0.0)
    for name, score in scores.items():
        chosen, tied = select(score)
        yield "accuracy", name, (chosen == gold).astype(float)
        yield "ties", name, tied.astype(float)
        if name == "byte":
            yield "gold_logprob_per_byte", name, score[every, gold]
        if name == "sum":
            yield "confidence", name, confidence(logprob)
            yield "confidence_joint", name, np.exp(logprob.max(axis=1))
            probability = ca.softmax(logprob)
            yield "gold_probability", name, probability[every, gold]
            yield "nll", name, ca.negative_log_likelihood(logprob, gold)
            yield "brier", name, ca.brier(probability, gold)
            others = logprob.copy()
            others[every, gold] = -np.inf
            yield "margin", name, logprob[every, gold] - others.max(axis=1)
            if slug == "multirc":
                yield "accuracy_lm_eval", name, (chosen == 1 - gold).astype(float)
    yield "uniform", "", 1.0 / candidates


def _cell_metrics(slug: str, rows: Any, cell: np.ndarray, cells: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (metric, value of each cell [cells]) of what is no mean over examples; cell: of each row, int [rows]."""
    from analysis import calibration as ca

    logprob, gold = padded(rows.column("logprob_sum"), -math.inf), rows.column("gold").to_numpy()
    chosen, sure = logprob.argmax(axis=1), confidence(logprob)
    right = chosen == gold
    for metric, equal_mass in (("ece", False), ("ece_mass", True)):
        yield metric, ca.reliability(sure, right, cell, cells, equal_mass=equal_mass).expected_error
    yield "auroc", ca.auroc(sure, right, cell, cells)
    if slug in F1_BENCHMARKS:
        yield "f1_macro", f1_macro(chosen, gold, cell, cells)


def f1_macro(chosen: np.ndarray, gold: np.ndarray, cell: np.ndarray, cells: int) -> np.ndarray:
    """Mean over the classes that are true or chosen anywhere in a cell of 2 TP / (2 TP + FP + FN), [cells]."""
    import numpy as np

    classes = int(max(chosen.max(), gold.max())) + 1
    counts = [np.bincount(cell * classes + label, minlength=cells * classes) for label in (chosen, gold)]
    hit = chosen == gold
    counts.append(np.bincount((cell * classes + gold)[hit], minlength=cells * classes))
    selected, true, both = (count.reshape(cells, classes) for count in counts)
    there = selected + true > 0
    f1 = np.divide(2 * both, selected + true, out=np.zeros(there.shape), where=there)
    return f1.sum(axis=1) / there.sum(axis=1)


def compute(scores: Scores) -> pd.DataFrame:
    """The metrics of every cell, sorted by key; columns `COLUMNS`, float64 values, missing stderr is NaN.

    stderr is the sample standard deviation over examples / sqrt(n), as lm-evaluation-harness reports it.
    """
    import numpy as np
    import pandas as pd

    from configs.load import BENCHMARKS, load_benchmark

    table = scores.table
    keys = pd.DataFrame({name: scores.codes(name)[0] for name in KEYS if name not in ("seed", "step", "tokens")})
    for name in ("seed", "step", "tokens"):
        keys[name] = table.column(name).to_numpy()
    cell = keys.groupby(list(KEYS), sort=False).ngroup().to_numpy()
    file = table.column("file").to_numpy()
    benchmark, slugs = scores.codes("benchmark")

    out = []
    for code, slug in enumerate(slugs):
        index = np.flatnonzero(benchmark == code)
        rows = table.take(index)
        _, first, group, n = np.unique(cell[index], return_index=True, return_inverse=True, return_counts=True)
        head = keys.iloc[index[first]].copy()
        for name in KEYS:
            if name not in ("seed", "step", "tokens"):
                head[name] = np.array(scores.codes(name)[1], dtype=object)[head[name].to_numpy()]
        files: list[set[str]] = [set() for _ in n]
        for pair in np.unique(np.stack([group, file[index]], axis=1), axis=0):
            files[pair[0]].add(scores.sha256[pair[1]])
        head["n"], head["fingerprint"] = n, [fingerprint(sorted(found)) for found in files]

        def add(
            metric: str, name: str, value: np.ndarray, stderr: np.ndarray | float, head: pd.DataFrame = head
        ) -> None:
            assert metric in METRICS and name in NORMALISATIONS
            out.append(head.assign(metric=metric, normalisation=name, value=value, stderr=stderr))

        for metric, name, example in _benchmark_metrics(slug, rows):
            total = np.bincount(group, example, minlength=len(n))
            mean = total / n
            if metric == "ties":
                add(metric, name, total, np.nan)
                continue
            square = np.bincount(group, (example - mean[group]) ** 2, minlength=len(n))
            with np.errstate(invalid="ignore", divide="ignore"):
                stderr = np.sqrt(square / (n - 1) / n)  # one example: no estimate
            add(metric, name, mean, np.nan if metric == "uniform" else stderr)
            if metric == "uniform":
                gold = rows.column("gold").to_numpy()
                majority = np.zeros((len(n), int(gold.max()) + 1))
                np.add.at(majority, (group, gold), 1)
                prompts = (variant.split("/")[0] for variant in head["variant"])
                fixed = [slug in BENCHMARKS and load_benchmark(slug).fixed_in(prompt) for prompt in prompts]
                share = np.where(fixed, majority.max(axis=1) / n, 0.0)
                add("chance", "", np.maximum(mean, share), np.nan)
        for metric, found in _cell_metrics(slug, rows, group, len(n)):
            add(metric, "sum", found, np.nan)
    frame = pd.concat(out, ignore_index=True)[list(COLUMNS)]
    return frame.sort_values([*KEYS, "metric", "normalisation"], ignore_index=True)


def write_metrics(runs: Path, study: str) -> Path:
    """Derive metrics.parquet from the study's score files; does nothing where it is already made from these files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from analysis.scores import files_fingerprint, read_scores, score_files

    path = metrics_file(runs, study)
    if path.is_file() and _made_from(path) == files_fingerprint(score_files(runs, study)):
        return path
    scores = read_scores(runs, study)
    table = pa.Table.from_pandas(compute(scores), _schema(), preserve_index=False)
    table = table.replace_schema_metadata({"schema_version": VERSION, "scores": scores.fingerprint, "study": study})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    with atomic_file(path) as stream:
        stream.write(buffer.getvalue())
    return path


def read_metrics(runs: Path, study: str) -> pd.DataFrame:
    """Metrics of a study: derived anew where score files are there, else read from a published metrics.parquet.

    Raises ArtifactError where neither exists or the file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from analysis.scores import score_files

    path = write_metrics(runs, study) if score_files(runs, study) else metrics_file(runs, study)
    if not path.is_file():
        raise ArtifactError("no scores and no metrics.parquet", where=path.parent, hint="python study.py run <study>")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise ArtifactError(f"not readable ({str(error).splitlines()[0]})", where=path, hint="delete it") from None
    if not table.schema.equals(_schema()):
        raise ArtifactError(
            "columns differ from this version's", where=path, valid=", ".join(COLUMNS), hint="delete it"
        )
    return table.to_pandas()


def _made_from(path: Path) -> str | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowException, OSError):
        return None
    current = metadata.get(b"schema_version") == VERSION.encode()
    return metadata[b"scores"].decode() if current and b"scores" in metadata else None


def _schema() -> Any:
    import pyarrow as pa

    kinds = {"seed": pa.int32(), "step": pa.int64(), "tokens": pa.int64(), "n": pa.int64()}
    kinds |= {"value": pa.float64(), "stderr": pa.float64()}
    return pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])


@user_errors
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m analysis.metrics",
        description="Derive metrics.parquet (accuracy, confidence, ties, chance) from a study's score files.",
        epilog="example:\n  python -m analysis.metrics --runs runs --study mini",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--runs", help="folder of studies (default: MAGIC_RUNS, else ./runs)")
    parser.add_argument("--study", required=True, help="name of the study")
    args = parser.parse_args(argv)
    print(write_metrics(runs_root(args.runs), args.study))


if __name__ == "__main__":
    main()
