"""The command line of study.py: what can be asked of a study, and how.

In: arguments. Out: a namespace whose `overrides` hold every KEY=VALUE, wherever it stood.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from configs.arguments import count
from configs.cost.options import add_hardware_options

EXAMPLES = """examples:
  study.py plan paper --gpu H100 --gpus 64 --price 2.5                what it takes: GPU-hours, money, days
  study.py run configs/studies/mini.yaml                              the synthetic microworld, minutes on two cores
  study.py run configs/studies/real_small.yaml --documents ../shared/data
  study.py run paper --emit-slurm jobs --slurm=--partition=a100       sbatch scripts, and what submits them
  study.py run mini --workers 1 scoring.sample=50                     dotted overrides of the study
  study.py status mini --watch                                        live: who is at work, how far, what failed
  study.py collect mini --out mini.parquet                            metrics of what is scored, and what is missing
  study.py why mini table5 hellaswag mini_m accuracy                  from a number to command, commit, data, machine
  study.py publish mini --out mini.zip                                scores, report, configs: a zip beside a paper
  study.py clean mini --exports                                       what may go, and what is lost with it (--yes)
"""


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Ends the process with a message and exit code 2 for what it does not know."""
    parser = argparse.ArgumentParser(
        description="Plan a study, run it, see how far it is, and trace, publish or clear away what came out.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        mine = [line for line in EXAMPLES.splitlines() if f"study.py {name} " in line]
        epilog = "\n".join(["examples:", *mine]) if mine else None
        raw = argparse.RawDescriptionHelpFormatter
        return commands.add_parser(name, help=text, description=text, epilog=epilog, formatter_class=raw)

    planning = command("plan", "what a study takes: units, GPU-hours, tokens, disk, money, days")
    add_hardware_options(planning)
    planning.set_defaults(gpus=8)  # a node
    planning.add_argument("--price", type=float, metavar="X", help="dollars for an hour of one GPU")
    running = command("run", "run or resume a study, ending with its report")
    _add_run_options(running)
    single = command("unit", "do one unit of a study that was begun (what torchrun and Slurm start)")
    single.add_argument("--again", action="store_true", help="make it anew, whatever is there")
    looking = command("status", "what is done, at work, failed, stopped, stale or missing")
    looking.add_argument("--all", action="store_true", help="name every unit")
    looking.add_argument("--watch", action="store_true", help="live, until nobody is at work on it")
    looking.add_argument(
        "--html",
        type=Path,
        metavar="FILE",
        help="write it as a page, and print nothing else (the driver keeps <runs>/<study>/status.html)",
    )
    collecting = command("collect", "derive metrics.parquet from the scores that are there, and list what is missing")
    collecting.add_argument("--out", type=Path, metavar="FILE", help="write a copy of metrics.parquet here")
    asking = command("why", "from a number of the report back to scores, runs, commands, commit, data and hardware")
    asking.add_argument("--json", action="store_true", help="everything that is known, for machines")
    asking.add_argument("--recipe", help="SFT recipe of the tables (default: the study's first)")
    publishing = command("publish", "a zip to put beside a paper: scores, metrics, report, configs; no weights")
    publishing.add_argument("--out", type=Path, required=True, metavar="FILE.zip", help="zip to write")
    publishing.add_argument(
        "--incomplete", action="store_true", help="publish even if units are stale or missing; the manifest names them"
    )
    cleaning = command("clean", "say what may go (resume points, caches, logs) and, with --yes, remove it")
    cleaning.add_argument("--exports", action="store_true", help="also exports that are scored and not needed any more")
    cleaning.add_argument("--all", action="store_true", help="the whole study, scores and report too")
    cleaning.add_argument("--yes", action="store_true", help="remove it; without, it is only listed")

    for sub in (planning, running):
        sub.add_argument("study", help="a path, or the name of a file in configs/studies")
        sub.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="dotted overrides of the study")
    for sub in (single, looking, collecting, asking, publishing, cleaning):
        also = ", or the path of its folder" if sub is not single else ""
        also += " or of a published zip" if sub is asking else ""
        sub.add_argument("study", help=f"name of a study below the runs folder{also}")
    single.add_argument("unit", help="as `status` names it")
    asking.add_argument("table", help="as the report names it: table5, 5, decisions, figure13; metrics: single cells")
    asking.add_argument("cell", nargs="*", help="keys of its row in any order, and perhaps the heading of a column")
    for sub in (running, single, publishing, cleaning):
        sub.add_argument("--data", metavar="DIR", help="tokenizers, token shards (default: MAGIC_DATA, ./data)")
    for sub in (planning, running, single, looking, collecting, asking, publishing, cleaning):
        sub.add_argument("--runs", metavar="DIR", help="where runs are kept (default: MAGIC_RUNS, ./runs)")

    args, rest = parser.parse_known_args(argv)
    # argparse takes positional arguments only where they stand together; these may also follow an option.
    if args.command in ("plan", "run") and all("=" in part and part[0] != "-" for part in rest):
        args.overrides = [*args.overrides, *rest]
    elif args.command == "why" and not any(part.startswith("-") for part in rest):
        args.cell = [*args.cell, *rest]
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if args.command == "run":
        slurm = args.emit_slurm is not None
        for option in ("workers",) if slurm else ("gpus_per_node", "hours", "slurm"):
            if getattr(args, option) not in (None, []):
                parser.error(f"--{option.replace('_', '-')} is of no use {'with' if slurm else 'without'} --emit-slurm")
    return args


def _add_run_options(running: argparse.ArgumentParser) -> None:
    running.add_argument("--documents", metavar="DIR", help="folder with corpora/ and benchmarks/ (local data)")
    running.add_argument(
        "--workers", type=count, metavar="N", help="units at a time where there is no GPU (default: one for each CPU)"
    )
    running.add_argument(
        "--stale",
        choices=("refuse", "redo", "keep"),
        default="refuse",
        help="finished units whose configuration, code or inputs have changed since: stop and name them (default), "
        "make them again, or take them as they are and note it in their records",
    )
    running.add_argument(
        "--emit-slurm", type=Path, metavar="DIR", help="run nothing: write sbatch scripts and submit.sh"
    )
    running.add_argument(
        "--gpus-per-node", type=count, metavar="N", help="GPUs of each node of the Slurm cluster (default: 8)"
    )
    running.add_argument("--hours", type=float, metavar="X", help="time limit of a Slurm job (default: 24)")
    running.add_argument("--slurm", action="append", default=[], metavar="OPTION", help="e.g. --slurm=--partition=a100")
