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
from configs.layout import StudyFolder
from configs.untrusted.checks import NAME_RULE, is_name

SEEDS = ("first", "mean")
SEEDS_HELP = "first: the first seed of every mixture, as in the paper (default); mean: average over a mixture's seeds"


def find_studies(runs: Path) -> list[StudyFolder]:
    """Studies under `runs` that have scores or metrics, newest first."""
    from analysis.scores.score_files import score_files

    def newest(study: StudyFolder) -> float:
        files = [*score_files(study), study.metrics]
        return max((f.stat().st_mtime for f in files if f.is_file()), default=0.0)

    found = [StudyFolder(runs, path.name) for path in runs.iterdir() if path.is_dir()] if runs.is_dir() else []
    dated = sorted(((newest(study), study.name) for study in found), reverse=True)
    return [StudyFolder(runs, name) for time, name in dated if time > 0]


def choose_study(runs: Path, name: str | None, out: TextIO | None = None) -> StudyFolder | None:
    """The study of this name, else the one with the newest scores; None where there is none.

    Prints to `out` (default: standard output) which of several it took. Raises ArtifactError where the named study has
    neither scores nor metrics.
    """
    found = {study.name: study for study in find_studies(runs)}
    if name is None:
        if len(found) > 1:
            newest, *others = found
            print(f"study {newest} (the newest); others: {', '.join(others)}\n", file=out or sys.stdout)
        return next(iter(found.values()), None)
    if name not in found:
        raise ArtifactError(
            "the study has no scores and no metrics.parquet",
            where=runs / name,
            valid=", ".join(found) or f"there is no study under {runs}",
            hint=f"python study.py run {name}",
        )
    return found[name]


def require_study(runs: Path, name: str | None) -> StudyFolder:
    """`choose_study`; raises ArtifactError where there is none."""
    study = choose_study(runs, name)
    if study is None:
        raise ArtifactError("no study with scores", where=runs, hint="make study, or --runs DIR")
    return study


@contextlib.contextmanager
def study_of_scores(scores: Path) -> Iterator[StudyFolder]:
    """Score files in any folder as a study; what is derived from them is removed afterwards.

    Raises ArtifactError where there are none.
    """
    from configs.untrusted.parquet import read_parquet

    files = sorted(path for path in scores.rglob("*.parquet") if not path.name.startswith("."))
    if not files:
        raise ArtifactError("no score file", where=scores, hint="a folder that holds *.parquet, at any depth")
    named = read_parquet(files[0], ArtifactError, hint="score again", columns=["study"])
    name = str(named.column("study")[0].as_py()) if named.num_rows and named.num_columns else ""
    if not is_name(name):
        raise ArtifactError(f"study is {name!r:.120}", where=files[0], valid=NAME_RULE)
    with tempfile.TemporaryDirectory() as runs:
        study = StudyFolder(Path(runs), name)
        study.path.mkdir()
        study.scores.symlink_to(scores.resolve(), target_is_directory=True)
        yield study
