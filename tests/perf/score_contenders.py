"""The two scorers: ours through `score_study` and score.py, and lm-evaluation-harness's HF backend.

Each evaluates in this process, or as a process of its own. The harness runs as its command does (this file is that
command: its own would go to the Hub for the rows): all its tasks are scanned, samples and results are written. It is
spared the bootstrap of F1, which its command runs 100,000 times.

    python tests/perf/score_contenders.py EXPORT TASKS OUT BATCH_SIZE task [task ...]      one run of the harness
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from score_inputs import Inputs

    from mixtures.tokens.tokenizer import Tokenizer

PROJECT = Path(__file__).resolve().parents[2]
HARNESS = "lm-eval"


@dataclass(frozen=True)
class Row:
    sums: np.ndarray
    """Log-probability of each candidate."""
    num_chars: np.ndarray | None
    """Of each candidate, where a decision by character is reported."""


Found = dict[tuple[int, str, int], Row]
"""By checkpoint, benchmark and row."""


@dataclass
class Turn:
    """One timing; processes that were started and waited for are in both."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    times: int = 1
    """How many times the work timed here is what the workload asks for."""
    counters: dict[str, Any] = field(default_factory=dict)


@contextmanager
def clock() -> Iterator[Turn]:
    turn = Turn()
    before, wall = os.times(), time.perf_counter()
    yield turn
    turn.wall_s = time.perf_counter() - wall
    turn.cpu_s = sum(os.times()[:4]) - sum(before[:4])


class Ours:
    """score_study, and score.py; each turn in a folder without plan and scores, unless the plan is kept."""

    def __init__(self, inputs: Inputs, *, unconditional: bool = True, keep_plan: bool = False) -> None:
        self._inputs, self._unconditional, self._keep_plan = inputs, unconditional, keep_plan
        self._runs = Path()

    def evaluate(self) -> Turn:
        return self._again(self._score_study)

    def process(self) -> Turn:
        assert self._unconditional, "score.py has no option for it"
        return self._again(self._score_py)

    def _again(self, score: Callable[[], Turn]) -> Turn:
        from score_inputs import STUDY

        from configs.layout import StudyFolder

        self._runs = Path(tempfile.mkdtemp(dir=self._inputs.root)) / "runs"
        shutil.copytree(self._inputs.runs, self._runs)
        if self._keep_plan:
            score()
            shutil.rmtree(StudyFolder(self._runs, STUDY).scores)
        return score()

    def _score_study(self) -> Turn:
        from score_inputs import STUDY

        from configs.layout import StudyFolder
        from configs.schema import StudyScoring
        from ray_eval.checkpoints.exports import Export, inspect_exports
        from ray_eval.scoring import ScoreOptions, score_study

        class Ready(Export):
            """Its tokenizer is in memory, as the harness's is when its clock starts."""

            def encoder(self) -> Tokenizer:
                return tokenizer

        exports = [Ready(**vars(export)) for export in inspect_exports(StudyFolder(self._runs, STUDY))[0]]
        tokenizer = Export.encoder(exports[0])
        with clock() as turn:
            summary = score_study(
                StudyFolder(self._runs, STUDY),
                ScoreOptions(
                    documents_root=self._inputs.root,
                    benchmarks=self._inputs.workload.benchmarks,
                    scoring=StudyScoring(unconditional=self._unconditional),
                    checkpoints=exports,
                    use_ray=False,
                ),
            )
        turn.counters = dataclasses.asdict(summary)
        return turn

    def _score_py(self) -> Turn:
        from score_inputs import STUDY

        from configs.layout import StudyFolder
        from ray_eval.checkpoints.exports import inspect_exports

        command = [sys.executable, "ray_eval/score.py", "--no-ray", "--data-root", str(self._inputs.root)]
        command += ["--benchmarks", ",".join(self._inputs.workload.benchmarks)]
        command += ["--exports", *(str(export.folder) for export in inspect_exports(StudyFolder(self._runs, STUDY))[0])]
        return run(command, self._inputs.bytecode)

    def found(self) -> Found:
        """Of the last turn."""
        from score_inputs import STUDY

        from configs.layout import StudyFolder
        from ray_eval.checkpoints.exports import inspect_exports
        from ray_eval.results import read_scores

        found: Found = {}
        for number, export in enumerate(inspect_exports(StudyFolder(self._runs, STUDY))[0]):
            for row in read_scores(export.score_file).to_pylist():
                key = (number, row["benchmark"], int(row["example_id"].split("/")[1]))
                found[key] = Row(np.array(row["logprob_sum"]), np.array(row["num_chars"]))
        return found


class Harness:
    """lm-evaluation-harness on the first `checkpoints` of a workload's."""

    def __init__(self, inputs: Inputs, batch_size: int, checkpoints: int) -> None:
        self._inputs, self._batch_size, self._checkpoints = inputs, batch_size, checkpoints
        self._out = inputs.root / "lm-eval"
        self._times = inputs.workload.checkpoints // checkpoints
        self._tasks = [inputs.task(slug) for slug in inputs.workload.benchmarks]
        self._manager: Any = None
        self._models: list[Any] = []

    def evaluate(self) -> Turn:
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager

        if not self._models:
            self._manager = TaskManager(include_path=str(self._inputs.tasks))
            options = {"dtype": "float32", "device": "cpu", "batch_size": self._batch_size}
            self._models = [HFLM(str(export), **options) for export in self._inputs.exports[: self._checkpoints]]
        shutil.rmtree(self._out, ignore_errors=True)
        with clock() as turn:
            for number, model in enumerate(self._models):
                harness(model, None, self._tasks, self._out / str(number), self._manager)
        turn.times = self._times
        return turn

    def process(self) -> Turn:
        shutil.rmtree(self._out, ignore_errors=True)
        total = Turn(times=self._times)
        for number, export in enumerate(self._inputs.exports[: self._checkpoints]):
            command = [sys.executable, "tests/perf/score_contenders.py", str(export), str(self._inputs.tasks)]
            command += [str(self._out / str(number)), str(self._batch_size), *self._tasks]
            turn = run(command, self._inputs.bytecode)
            total.wall_s += turn.wall_s
            total.cpu_s += turn.cpu_s
        return total

    def found(self) -> Found:
        """Of the last turn."""
        found: Found = {}
        for number in range(self._checkpoints):
            for slug, task in zip(self._inputs.workload.benchmarks, self._tasks, strict=True):
                (path,) = (self._out / str(number)).rglob(f"samples_{task}_*.jsonl")
                for line in path.read_text().splitlines():
                    sample = json.loads(line)
                    sums = np.array([float(score) for score, _ in sample["filtered_resps"]])
                    texts = [arguments["arg_1"].removeprefix(" ") for arguments in sample["arguments"].values()]
                    num_chars = np.array([len(text) for text in texts]) if "acc_norm" in sample else None
                    found[number, slug, sample["doc_id"]] = Row(sums, num_chars)
        return found


def harness(model: Any, model_args: dict[str, Any] | None, tasks: list[str], out: Path, manager: Any) -> None:
    """What the harness's `run` command does once it has parsed its options."""
    from lm_eval import simple_evaluate
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.utils import make_table

    tracker = EvaluationTracker(output_path=str(out))
    results = simple_evaluate(
        model=model,
        model_args=model_args,
        batch_size=None if model_args is None else model_args.pop("batch_size"),
        device="cpu",
        tasks=tasks,
        bootstrap_iters=0,
        evaluation_tracker=tracker,
        task_manager=manager,
    )
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    for task in results["configs"]:
        tracker.save_results_samples(task_name=task, samples=samples[task])
    print(make_table(results))


def run(command: list[str], bytecode: Path) -> Turn:
    """A process, from its start to its end; its output is shown if it fails.

    Python keeps what it compiles in `bytecode`, as it does in an ordinary installation, which this may not be.
    """
    environment = os.environ | {"PYTHONPYCACHEPREFIX": str(bytecode), "PYTHONDONTWRITEBYTECODE": ""}
    with clock() as turn:
        done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return turn


def main() -> None:
    export, include, out, batch_size, *tasks = sys.argv[1:]
    import torch
    from lm_eval.tasks import TaskManager

    torch.set_num_threads(1)
    manager = TaskManager(include_path=include)
    options = {"pretrained": export, "dtype": "float32", "batch_size": int(batch_size)}
    harness("hf", options, tasks, Path(out), manager)


if __name__ == "__main__":
    main()
