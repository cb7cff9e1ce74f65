"""Which study a command is about: the newest, the named one, or score files that lie anywhere.

In: a folder of studies, or a folder of score files. Out: the study's name and the folder it lies in. Imports nothing
heavy, so that `--help` answers at once.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from configs.errors import ArtifactError
from configs.layout import metrics_file, scores_dir
from configs.untrusted.checks import NAME_RULE, is_name

SEEDS = ("first", "mean")
SEEDS_HELP = "first: the first seed of every mixture, as in the paper (default); mean: average over a mixture's seeds"


def studies(runs: Path) -> list[str]:
    """Studies under `runs` that have scores or metrics, newest first."""

    from analysis.scores.score_files import score_files

    def newest(study: str) -> float:
        files = [*score_files(runs, study), metrics_file(runs, study)]
        return max((f.stat().st_mtime for f in files if f.is_file()), default=0.0)

    names = [p.name for p in runs.iterdir() if p.is_dir()] if runs.is_dir() else []
    dated = sorted(((newest(name), name) for name in names), reverse=True)
    return [name for time, name in dated if time > 0]


@contextlib.contextmanager
def borrowed(scores: Path) -> Iterator[tuple[Path, str]]:
    """(folder of studies, study) of score files in any folder; what is derived from them does not outlive the context.

    Raises ArtifactError where there are none.
    """
    from configs.untrusted.parquet import read_parquet

    files = sorted(path for path in scores.rglob("*.parquet") if not path.name.startswith("."))
    if not files:
        raise ArtifactError("no score file", where=scores, hint="a folder that holds *.parquet, at any depth")
    named = read_parquet(files[0], ArtifactError, hint="score again", columns=["study"])
    study = str(named.column("study")[0].as_py()) if named.num_rows and named.num_columns else ""
    if not is_name(study):
        raise ArtifactError(f"study is {study!r:.120}", where=files[0], valid=NAME_RULE)
    with tempfile.TemporaryDirectory() as runs:
        folder = scores_dir(Path(runs), study)
        folder.parent.mkdir()
        folder.symlink_to(scores.resolve(), target_is_directory=True)
        yield Path(runs), study


def choose_study(runs: Path, name: str | None, aloud: TextIO | None = None) -> str | None:
    """`name`, else the study with the newest scores; None where there is none. Says aloud which of several it is.

    Raises ArtifactError where the named study has neither scores nor metrics.
    """
    from analysis.panel.studies import studies

    found = studies(runs)
    if name is None:
        if len(found) > 1:
            print(f"study {found[0]} (the newest); others: {', '.join(found[1:])}\n", file=aloud or sys.stdout)
        return found[0] if found else None
    if name not in found:
        raise ArtifactError(
            "the study has no scores and no metrics.parquet",
            where=runs / name,
            valid=", ".join(found) or f"there is no study under {runs}",
            hint=f"python study.py run {name}",
        )
    return name
