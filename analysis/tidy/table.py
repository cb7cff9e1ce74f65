"""A tidy table of scores becomes the metrics of a study.

In: CSV or Parquet with one row a number:

    model      what is compared: a mixture, or any model                                         required
    stage      PT: the early score, SFT: the late one                                            required
    benchmark  name; the paper's slugs keep their categories                                     required
    value      the score, e.g. accuracy between 0 and 1                                          required
    group      of the model, e.g. its web source or family: blocks of the restricted permutations
    category   of the benchmark                                                                  default: all
    scale      size of the model, where sizes are kept apart                                     default: all
    seed       repeats of a model                                                                default: 0
    metric     accuracy or any name of configs/metrics.py                                        default: accuracy
    stderr, n  standard error over examples, and how many

Out: <runs>/<study>/metrics.parquet, from which tables and report are made as from any study. Such a table has no single
answers, so whatever needs them (noise of the examples, calibration) stays unmeasured.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.scores.metrics import write_given
from configs.artifacts import sha256_file
from configs.errors import ArtifactError, unprintable
from configs.layout import StudyFolder
from configs.metrics import COLUMNS, METRICS
from configs.untrusted.checks import JSON_BYTES, understood
from configs.untrusted.parquet import read_parquet

REQUIRED = ("model", "stage", "benchmark", "value")
DEFAULTS: dict[str, object] = {"group": "", "category": "", "scale": "all", "seed": 0, "metric": "accuracy"}
NUMBERS = ("value", "stderr", "n", "seed")
KEY = ("scale", "stage", "model", "seed", "benchmark", "metric")


def write_tidy(table: Path, study: StudyFolder) -> Path:
    """Raises ArtifactError for a table that cannot be believed, and where the study has scores of its own."""
    if study.scores.is_dir():
        raise ArtifactError("the study has score files", where=study.scores, hint="another --study")
    frame = read_tidy(table)
    categories = _one_of_each(frame, "benchmark", "category", table)
    groups = _one_of_each(frame, "model", "group", table)
    write_given(_as_metrics(frame, sha256_file(table)), study.metrics, study.name, categories, groups)
    return study.metrics


def read_tidy(path: Path) -> pd.DataFrame:
    """Columns as the module says, complete and of the right types. Raises ArtifactError naming column and row."""
    frame = _typed_columns(_read_table(path), path)
    _check_values(frame, path)
    return frame


def _read_table(path: Path) -> pd.DataFrame:
    """The file as it is; every column of a CSV is text."""
    if not path.is_file():
        raise ArtifactError("no such file", where=path, valid="a CSV or Parquet file")
    if path.suffix == ".parquet":
        table = read_parquet(path, ArtifactError, hint="write it again")
        with understood(path, problem="not a readable table"):
            return table.to_pandas()
    if (size := path.stat().st_size) > JSON_BYTES:
        raise ArtifactError(f"{size:,} bytes of CSV", where=path, valid=f"at most {JSON_BYTES:,}")
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError, OverflowError, pd.errors.ParserError) as error:
        message = next(iter(str(error).splitlines()), type(error).__name__)
        raise ArtifactError(f"not a readable table ({message})", where=path) from None


def _typed_columns(raw: pd.DataFrame, path: Path) -> pd.DataFrame:
    """All columns that a table may have, with their defaults; numbers are floats, missing ones NaN."""
    valid = (*REQUIRED, *DEFAULTS, "stderr", "n")
    if missing := [name for name in REQUIRED if name not in raw]:
        raise ArtifactError(f"column {missing[0]} is missing", where=path, valid=", ".join(valid))
    if unknown := sorted(set(map(str, raw)) - set(valid)):
        raise ArtifactError(f"unknown column {unknown[0]}", where=path, valid=", ".join(valid))
    if not len(raw):
        raise ArtifactError("holds no row", where=path)
    frame = pd.DataFrame(index=raw.index)
    for name in valid:
        given = raw[name].astype(str).str.strip() if name in raw else pd.Series("", index=raw.index)
        if name not in NUMBERS:
            frame[name] = given.where(given != "", str(DEFAULTS.get(name, "")))
            continue
        given = given.where(given != "", "0" if name == "seed" else "nan")
        frame[name] = pd.to_numeric(given, errors="coerce")
        wrong = frame[name].isna() & (given.str.lower() != "nan")
        _refuse(wrong, f"{name} is no number", given, path)
    return frame


def _check_values(frame: pd.DataFrame, path: Path) -> None:
    _refuse(~frame["stage"].isin(["PT", "SFT"]), "stage is neither PT nor SFT", frame["stage"], path)
    _refuse(~frame["metric"].isin(list(METRICS)), "unknown metric", frame["metric"], path)
    for name in ("model", "benchmark"):
        _refuse(frame[name] == "", f"{name} is empty", frame[name], path)
    for name in ("model", "benchmark", "group", "category", "scale"):
        _refuse(frame[name].map(unprintable), f"{name} holds a control character", frame[name], path)
    for name, largest in (("seed", 2**31), ("n", 2**62)):
        whole = frame[name].between(0, largest - 1) & (frame[name] % 1 == 0)
        whole |= frame[name].isna() & (name == "n")  # which may be left out
        _refuse(~whole, f"{name} is no whole number from 0", frame[name], path)
    _refuse(~frame["value"].abs().lt(float("inf")), "value is missing or not finite", frame["value"], path)
    _refuse(frame.duplicated(list(KEY)), "this number is there twice", frame["model"], path)


def _refuse(wrong: pd.Series, problem: str, found: pd.Series, path: Path) -> None:
    """The first row that is wrong, counted as an editor counts lines of a CSV with a heading."""
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise ArtifactError(f"{problem}: {found.iloc[row]!r}", where=f"{path}, line {row + 2}")


def _one_of_each(frame: pd.DataFrame, of: str, what: str, path: Path) -> dict[str, str]:
    """The category of each benchmark, or the group of each model. Raises ArtifactError where one has two."""
    several = frame.groupby(of, sort=False)[what].nunique()
    if (several > 1).any():
        name = several.index[several > 1][0]
        found = sorted(set(frame.loc[frame[of] == name, what]))
        raise ArtifactError(f"{of} {name!r} has {what} {found[0]!r} and {found[1]!r}", where=path, valid="one")
    return {str(key): str(value) for key, value in frame.groupby(of, sort=False)[what].first().items()}


def _as_metrics(frame: pd.DataFrame, fingerprint: str) -> pd.DataFrame:
    """Rows of metrics.parquet; steps and tokens are unknown: 0."""
    own: dict[str, Any] = {"step": 0, "tokens": 0, "variant": "own", "fingerprint": fingerprint}
    made = frame.rename(columns={"model": "mixture"}).assign(**own)
    made["recipe"] = made["stage"].map({"PT": "", "SFT": "own"})
    made["normalisation"] = ["" if metric in ("uniform", "chance") else "sum" for metric in made["metric"]]
    made["n"] = made["n"].fillna(0).astype("int64")
    made["seed"] = made["seed"].astype("int32")
    return made[list(COLUMNS)].sort_values(list(COLUMNS[:11]), ignore_index=True)
