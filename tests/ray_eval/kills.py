"""Kill a scoring process at a chosen moment, in the midst of its work: a kill that comes too late does not count."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from configs.layout import PROJECT_ROOT

ATTEMPTS = 5

SCORE = """
import sys
from pathlib import Path
from configs.layout import StudyFolder
from ray_eval.scoring import ScoreOptions, score_study
runs, root, work, workers = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
options = {"num_workers": workers} if workers else {"use_ray": False}
score_study(StudyFolder(runs, "trial"), ScoreOptions(documents_root=root, unit_work=work, **options))
"""


def kill_while_scoring(
    runs: Path, root: Path, unit_work: float, at: int, *, num_workers: int, checkpoints: int
) -> None:
    """SIGKILL once `at` part files are there; once more, earlier, if all checkpoints were scored by then.

    Without workers it scores in its own process.
    """
    scores = runs / "trial" / "scores"
    arguments = [str(runs), str(root), str(unit_work), str(num_workers)]
    for _ in range(ATTEMPTS):
        process = subprocess.Popen([sys.executable, "-c", SCORE, *arguments], cwd=PROJECT_ROOT)
        while process.poll() is None and len(list(scores.rglob("*.part"))) < at:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        if process.wait() == -signal.SIGKILL and len(list(scores.rglob("*.parquet"))) < checkpoints:
            return
        shutil.rmtree(scores)
        at //= 2
    pytest.fail("no kill hit anything")
