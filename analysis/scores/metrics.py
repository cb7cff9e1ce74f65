"""Scores to metrics.parquet: one row per cell (checkpoint, benchmark, variant), metric and normalisation.

In: `analysis.scores.answers`, in which a cell is a slice. Out: <runs>/<study>/metrics.parquet and, for what needs
single examples, answers.parquet beside it; this module alone writes them. What cannot be derived has no row. Equal
score files give equal bytes.
"""

from __future__ import annotations

import io
import itertools
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.scores.answers import Answers, as_table
from analysis.scores.gather import gather
from analysis.scores.score_files import files_fingerprint, read_scores, score_files
from analysis.stats import calibration
from analysis.stats.example_bootstrap import calibration_errors, counts, f1_errors, macro_f1
from configs.artifacts import atomic_file
from configs.errors import ArtifactError, unprintable
from configs.layout import StudyFolder
from configs.metrics import COLUMNS, F1_BENCHMARKS, KEYS, METRICS, NORMALISATIONS, VERSION
from configs.untrusted.checks import parse_json, understood
from configs.untrusted.parquet import metadata_of, read_parquet, read_schema

LARGEST = 20_000_000
"""Numbers of a bootstrap that are in memory at once."""
ROWS_AT_ONCE = 1 << 16
"""Rows whose sums are made together: so many stay in a processor's cache."""
KINDS = {"seed": pa.int32(), "value": pa.float64(), "stderr": pa.float64()}
KINDS |= dict.fromkeys(("step", "tokens", "n"), pa.int64())
SCHEMA = pa.schema([(name, KINDS.get(name, pa.string())) for name in COLUMNS])


def compute(answers: Answers) -> pd.DataFrame:
    """The metrics of every cell, sorted by key; columns `COLUMNS`, float64 values, missing stderr is NaN.

    stderr is the sample standard deviation over examples / sqrt(n), as lm-evaluation-harness reports it; of AUROC it is
    DeLong's, of calibration errors and F1 a bootstrap's over examples.
    """
    head = answers.cells.drop(columns=["checkpoint", "temperature", "fixed"])
    out = []
    for metric, name, value, stderr in _metrics(answers):
        assert metric in METRICS and name in NORMALISATIONS
        known = np.isfinite(value)
        out.append(head.assign(metric=metric, normalisation=name, value=value, stderr=stderr)[known])
    frame = pd.concat(out, ignore_index=True)[list(COLUMNS)]
    return frame.sort_values([*KEYS, "metric", "normalisation"], ignore_index=True)


def _metrics(answers: Answers) -> Iterator[tuple[str, str, np.ndarray, np.ndarray | float]]:
    """Yield (metric, normalisation, value [cells], stderr [cells]); NaN: not derivable."""
    starts, n = answers.starts, answers.cells["n"].to_numpy()
    for (metric, name), values in answers.values.items():
        total, square = _sums(values, starts, n)
        if metric == "ties":
            yield metric, name, total, np.nan
            continue
        with np.errstate(invalid="ignore", divide="ignore"):
            stderr = np.sqrt(square / (n - 1) / n)  # one example: no estimate
        yield metric, name, total / n, np.nan if metric == "uniform" else stderr
    yield "chance", "", _chance(answers), np.nan
    for metric, value, stderr in _of_whole_cells(answers):
        yield metric, "sum", value, stderr


def _sums(values: np.ndarray, starts: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(sum, sum of squared deviations from the mean) of each cell, [cells] each; values: [rows], starts, n: [cells]."""
    total, square = np.empty((2, len(n)))
    edges = np.unique(np.searchsorted(starts, np.arange(0, len(values), ROWS_AT_ONCE)))
    for first, last in itertools.pairwise([*edges.tolist(), len(n)]):
        some, mine = slice(first, last), slice(starts[first], starts[last - 1] + n[last - 1])
        exact, places = values[mine].astype(float), starts[some] - starts[first]
        total[some] = np.add.reduceat(exact, places)
        exact -= np.repeat(total[some] / n[some], n[some])
        square[some] = np.add.reduceat(np.square(exact, out=exact), places)
    return total, square


def _chance(answers: Answers) -> np.ndarray:
    """`uniform`, or a larger share of the majority class where all rows have the same candidates; [cells]."""
    cells, n = answers.cells, answers.cells["n"].to_numpy()
    classes = int(answers.gold.max()) + 1
    counts = np.bincount(answers.cell * classes + answers.gold, minlength=len(cells) * classes)
    majority = counts.reshape(len(cells), classes).max(axis=1) / n
    uniform = np.add.reduceat(answers.values["uniform", ""], answers.starts) / n
    return np.maximum(uniform, np.where(cells["fixed"], majority, 0.0))


def _of_whole_cells(answers: Answers) -> Iterator[tuple[str, np.ndarray, np.ndarray | float]]:
    """Yield (metric, value [cells], stderr [cells]) of what is no mean over examples; NaN where it does not apply."""
    cells, cell, slugs = len(answers.cells), answers.cell, answers.cells["benchmark"]
    sure, right = answers.values["confidence", "sum"], answers.values["accuracy", "sum"] > 0
    order = calibration.ascending(sure, cell)
    bins = {"ece": calibration.width_bins(sure), "ece_mass": calibration.mass_bins(order, cell)}
    errors = _calibration_errors(answers, right - sure, bins)
    for metric, bin_ in bins.items():
        diagram = calibration.reliability_diagram(sure, right, cell, cells, bin_)
        yield metric, diagram.expected_error, errors[metric]
        if metric == "ece":
            parts = calibration.brier_parts(diagram)
            yield "brier_calibration", parts.calibration, np.nan
            yield "brier_resolution", parts.resolution, np.nan
            yield "brier_uncertainty", parts.uncertainty, np.nan
    corrected = answers.values["accuracy_prior_corrected", "sum"] > 0
    answered = {"scaled": right, "pt_scaled": right, "common_scaled": right, "prior_corrected": corrected}
    for suffix, hit in answered.items():
        scaled = answers.values[f"confidence_{suffix}", "sum"]
        known = np.isfinite(np.add.reduceat(scaled, answers.starts))
        sure_scaled = np.nan_to_num(scaled)
        bin_ = calibration.width_bins(sure_scaled)
        error = calibration.reliability_diagram(sure_scaled, hit, cell, cells, bin_).expected_error
        yield f"ece_{suffix}", np.where(known, error, np.nan), np.nan
    yield "temperature", answers.cells["temperature"].to_numpy(), np.nan
    yield "auroc", *calibration.auroc(sure, right, cell, cells, order)
    f1, stderr = f1_macro(answers)
    yield "f1_macro", f1, stderr
    share = np.bincount(cell, answers.chosen == 1 - answers.gold, cells) / answers.cells["n"].to_numpy()
    yield "accuracy_lm_eval", np.where(slugs == "multirc", share, np.nan), np.nan


def _calibration_errors(answers: Answers, gap: np.ndarray, bins: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Standard errors of calibration errors, [cells] each; gap (right - confidence) and ways to bin it: [rows]."""
    out = {metric: np.empty(len(answers.cells)) for metric in bins}
    for (slug, _), group in answers.cells.groupby(["benchmark", "variant"], sort=False):
        n = int(group["n"].iloc[0])  # the same for all checkpoints, or they would have been refused
        drawn = counts(n, zlib.crc32(str(slug).encode()))
        some = max(1, LARGEST // (n * calibration.BINS))
        for start in range(0, len(group), some):
            mine = group.index[start : start + some].to_numpy()
            rows = answers.starts[mine][:, None] + np.arange(n)
            for metric, bin_ in bins.items():
                out[metric][mine] = calibration_errors(drawn, gap[rows], bin_[rows], calibration.BINS)
    return out


def f1_macro(answers: Answers) -> tuple[np.ndarray, np.ndarray]:
    """(macro-F1, its standard error), [cells] each; NaN but for `F1_BENCHMARKS`."""
    classes = int(max(answers.chosen.max(), answers.gold.max())) + 1
    at = (answers.cell * classes + answers.gold) * classes + answers.chosen
    confusion = np.bincount(at, minlength=len(answers.cells) * classes**2).reshape(-1, classes, classes)
    value, stderr = np.full((2, len(answers.cells)), np.nan)
    known = answers.cells["benchmark"].isin(F1_BENCHMARKS).to_numpy()
    value[known], stderr[known] = macro_f1(confusion[known]), f1_errors(confusion[known])
    return value, stderr


def write_metrics(study: StudyFolder) -> Path:
    """Derive metrics.parquet and answers.parquet from the study's score files, unless they are made from these."""
    path, beside = study.metrics, study.answers
    if all(_made_from(file) is not None for file in (path, beside)):
        wanted = files_fingerprint(score_files(study))
        if all(_made_from(file) == wanted for file in (path, beside)):
            return path
    answers = gather(read_scores(study))
    metadata = {"schema_version": VERSION, "scores": answers.fingerprint, "study": study.name}
    _write(as_table(answers), beside, metadata)
    _write(pa.Table.from_pandas(compute(answers), SCHEMA, preserve_index=False), path, metadata)
    return path


def write_given(
    frame: pd.DataFrame, path: Path, study: str, categories: dict[str, str], groups: dict[str, str]
) -> None:
    """Metrics that were not derived here; categories: of the benchmarks, groups: of the mixtures, "" where unknown."""
    described = {"categories": json.dumps(categories), "groups": json.dumps(groups)}
    table = pa.Table.from_pandas(frame, SCHEMA, preserve_index=False)
    _write(table, path, {"schema_version": VERSION, "study": study} | described)


def read_described(study: StudyFolder) -> tuple[dict[str, str], dict[str, str]]:
    """(categories, groups) as `write_given` has them; empty for metrics that were derived from scores."""
    path = study.metrics
    metadata = metadata_of(read_schema(path, ArtifactError, hint="delete it"))
    with understood(path, hint="delete it"):
        categories, groups = (
            {str(name): str(value) for name, value in parse_json(metadata.get(key, "{}")).items()}
            for key in ("categories", "groups")
        )
    if bad := [text for pairs in (categories, groups) for pair in pairs.items() for text in pair if unprintable(text)]:
        raise ArtifactError(f"a control character in {bad[0]!r:.120}", where=path, hint="delete it")
    return categories, groups


def _write(table: pa.Table, path: Path, metadata: dict[str, str]) -> None:

    buffer = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), buffer, compression="zstd", write_page_checksum=True)
    with atomic_file(path) as stream:
        stream.write(buffer.getvalue())


def read_metrics(study: StudyFolder) -> pd.DataFrame:
    """Metrics of a study: derived anew where score files are there, else read from a published metrics.parquet.

    Raises ArtifactError where neither exists or the file is damaged.
    """
    path = write_metrics(study) if score_files(study) else study.metrics
    if not path.is_file():
        raise ArtifactError("no scores and no metrics.parquet", where=path.parent, hint="python study.py run <study>")
    table = read_parquet(path, ArtifactError, hint="delete it")
    if not table.schema.equals(SCHEMA):
        raise ArtifactError(
            "columns differ from this version's", where=path, valid=", ".join(COLUMNS), hint="delete it"
        )
    frame = table.to_pandas(ignore_metadata=True)
    _check(frame, path)
    return frame


def _check(frame: pd.DataFrame, path: Path) -> None:
    """Refuse what no version of this program writes: a published file may have been altered."""
    texts = [name for name in COLUMNS if name not in KINDS]
    problems = {
        "no row": frame.empty,
        "a missing key": frame[[*KEYS, "metric", "normalisation", "n"]].isna().any(axis=None),
        "a stage other than PT and SFT": not set(frame["stage"].unique()) <= {"PT", "SFT"},
        "an unknown metric": not set(frame["metric"].unique()) <= set(METRICS),
        "an unknown normalisation": not set(frame["normalisation"].unique()) <= set(NORMALISATIONS),
        "a value that is not finite": not np.isfinite(frame["value"]).all(),
        "a negative count": (frame[["n", "step", "tokens", "seed"]] < 0).any(axis=None),
        "a number twice": frame.duplicated([*KEYS, "metric", "normalisation"]).any(),
        "a control character": any(unprintable(text) for name in texts for text in frame[name].dropna().unique()),
    }
    if found := [problem for problem, there in problems.items() if there]:
        raise ArtifactError(f"it holds {', '.join(found)}", where=path, hint="delete it")


def _made_from(path: Path) -> str | None:
    """Fingerprint of the score files that a file of this version was made from; None for any other file."""
    try:
        metadata = metadata_of(pq.read_schema(path))
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        return None
    return metadata.get("scores") if metadata.get("schema_version") == VERSION else None
