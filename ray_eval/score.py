#!/usr/bin/env python3
"""Score checkpoints on multiple-choice benchmarks, one Parquet file for each checkpoint.

In: exports under <runs>/<study>, or any causal language model of transformers (--model), and benchmark rows. Out:
<runs>/<study>/scores/**/*.parquet (study `models` for --model), one row for each example, and a table of accuracies.
What is scored and unchanged is skipped, so a stopped run is resumed by starting it again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

if not __package__:  # started as a script: imports must find the project, not the folder of this file
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from configs.arguments import CommandParser, count
from configs.errors import ConfigError, ResourceError, user_errors

EXAMPLES = """\
examples:
  ray_eval/score.py                                  every study below ./runs (or MAGIC_RUNS)
  ray_eval/score.py --study mini --workers 2         one study, two actors
  ray_eval/score.py --study mini --no-ray            in this process, without Ray
  ray_eval/score.py --study mini --data-root ../shared/data --limit 100 --replace
  ray_eval/score.py --exports runs/mini/mini_s/V1P0/seed0/pt/export/step-0000585
  ray_eval/score.py --model EleutherAI/pythia-160m EleutherAI/pythia-160m@step1000 --benchmarks piqa,arc_easy
  ray_eval/score.py --model ~/models/mine --out scores --limit 200
  ray job submit ray_eval/score.py                   on a cluster started in the project folder, environment active
  ray job submit --working-dir . -- python ray_eval/score.py --runs /shared/runs      on any other
"""

PACKAGES = ("jinja2", "numpy", "pyarrow", "pydantic", "rich", "safetensors", "tokenizers", "torch", "yaml")


def expect_packages(*names: str) -> None:
    """Raises ResourceError where this Python lacks some: a job runs with the one that `ray start` found."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise ResourceError(
            f"this Python lacks {', '.join(missing)}",
            where=sys.executable,
            hint="activate the project's environment (source .venv/bin/activate), on a cluster before `ray start`",
        )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = CommandParser(prog="ray_eval/score.py", description=__doc__, examples=EXAMPLES)
    add = parser.add_argument
    parser.add_common("runs", help="folder of the studies (default: MAGIC_RUNS, else ./runs)")
    parser.add_common("study", metavar="NAME", help="one study (default: every study with a complete export)")
    add("--exports", metavar="PATH", nargs="+", type=Path, default=[], help="only these export folders")
    add(
        *("--model", "--models"),
        metavar="MODEL",
        nargs="+",
        action="extend",
        default=[],
        help="any Hugging Face causal LM: folders, or id or id@revision of the Hub (safetensors only)",
    )
    add("--out", metavar="DIR", type=Path, help="write plans and scores below DIR/<study> (default: --runs)")
    add("--data-root", metavar="DIR", type=Path, help="folder that holds benchmarks/ (default: as the study says)")
    add("--data", metavar="DIR", help="keeps the commits of benchmarks of the Hub (default: MAGIC_DATA, else ./data)")
    add("--benchmarks", metavar="A,B", help="slugs, or YAML files with benchmarks of your own (default: the study's)")
    add("--prompt", metavar="SET", help="prompt set, e.g. lettered (default: the study's, else each benchmark's first)")
    add("--shots", metavar="K", type=int, help="solved train rows in front of each example (default: the study's)")
    add("--chat", action="store_true", help="ask fine-tuned checkpoints of ours in the chat format of their training")
    add(
        "--limit",
        metavar="N",
        type=int,
        help="examples of each benchmark, a fixed random sample (default: the study's; 0: all)",
    )
    add(
        "--precision",
        choices=("fp32", "bf16", "fp16"),
        help="of the weights (default: the study's; of a --model, as stored)",
    )
    add("--trust-remote-code", action="store_true", help="run the Python code that comes with a --model (recorded)")
    add("--checkpoints", metavar="N", type=count, help="score at most N checkpoints of a study")
    add("--workers", metavar="N", type=count, help="actors (default: one for each GPU, else for each CPU)")
    add(
        "--gpus-per-worker",
        metavar="F",
        type=float,
        default=1.0,
        help="0.5: two workers on one; 2: two share each model (default: 1)",
    )
    add("--no-ray", action="store_true", help="score in this process")
    add("--replace", action="store_true", help="overwrite scores made with other settings")
    add("--table", action="store_true", help="end with a table for each checkpoint, however many they are")
    return parser.parse(arguments)


def check_options(given: argparse.Namespace) -> None:
    """What was typed is done or refused: raises ConfigError for an option that another one leaves without use."""
    one = "leave out one of the two"
    here = "with --no-ray, which scores in this process"
    model = " ".join(given.model[:1])
    other_chat = (
        "leave out --chat; or score it with lm-evaluation-harness and --apply_chat_template, and take its results over"
        " (python -m ray_eval.import_results --help)"
    )
    conflicts = (
        (given.no_ray and given.workers is not None, f"--workers {here}", one),
        (given.no_ray and given.gpus_per_worker < 1, f"a part of a GPU {here}", one),
        (given.exports and given.study, "--study with --exports, which scores those folders only", one),
        (
            given.data and given.data_root,
            "--data, which keeps commits of the Hub, with --data-root, which is read instead",
            one,
        ),
        (
            given.trust_remote_code and not model,
            "--trust-remote-code without --model",
            "leave it out: no code of an export is ever run",
        ),
        (
            given.chat and model,
            f"--chat with --model {model}: only checkpoints that were trained here are asked in chat",
            other_chat,
        ),
    )
    for is_typed, problem, hint in conflicts:
        if is_typed:
            raise ConfigError(problem, hint=hint)


@user_errors
def main(arguments: Sequence[str] | None = None) -> None:
    given = parse(arguments)
    check_options(given)
    expect_packages(*PACKAGES, *(() if given.no_ray else ("ray",)))

    # Only now: torch and pyarrow take seconds, --help and a refusal do not, and a package may be missing.
    from ray_eval.evaluation import evaluate

    evaluate(given)


if __name__ == "__main__":
    main()
