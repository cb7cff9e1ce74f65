"""The command line of study.py: what can be asked of a study, and how.

In: arguments. Out: a namespace with `command`, and with the options of that command.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from configs.arguments import CommandParser, count
from configs.cost.options import add_hardware_options
from configs.errors import ConfigError

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
    argv = sys.argv[1:] if argv is None else argv
    parser = CommandParser(
        description="Plan a study, run it, see how far it is, and trace, publish or clear away what came out.",
        examples=EXAMPLES,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    if not argv or argv[0] not in COMMANDS:
        for name, (text, _) in COMMANDS.items():
            commands.add_parser(name, help=text)
        return parser.parse_args(argv)
    # Parsed by itself: argparse takes positional arguments between options only where there are no sub-commands.
    args = _command_parser(f"{parser.prog} {argv[0]}", argv[0]).parse(argv[1:])
    args.command = argv[0]
    if args.command == "run":
        _check_slurm_options(args)
    return args


def _check_slurm_options(args: argparse.Namespace) -> None:
    """Raises ConfigError for an option that would be ignored, since the study runs here or since Slurm runs it."""
    slurm = args.emit_slurm is not None
    for option in ("workers",) if slurm else ("gpus_per_node", "hours", "slurm"):
        if getattr(args, option) not in (None, []):
            raise ConfigError(
                f"--{option.replace('_', '-')} is of no use {'with' if slurm else 'without'} --emit-slurm"
            )


def _command_parser(prog: str, command: str) -> CommandParser:
    text, add_options = COMMANDS[command]
    lines = [line for line in EXAMPLES.splitlines() if f"study.py {command} " in line]
    parser = CommandParser(prog=prog, description=text, examples="\n".join(["examples:", *lines]) if lines else "")
    add_options(parser)
    parser.add_common("runs")
    return parser


def _plan_options(parser: CommandParser) -> None:
    _add_study_file(parser)
    add_hardware_options(parser)
    parser.set_defaults(gpus=8)  # a node
    parser.add_argument("--price", type=float, metavar="X", help="dollars for an hour of one GPU")


def _run_options(parser: CommandParser) -> None:
    _add_study_file(parser)
    parser.add_common("documents", "data")
    parser.add_common("workers", help="units at a time where there is no GPU (default: one for each CPU)")
    parser.add_argument(
        "--stale",
        choices=("refuse", "redo", "keep"),
        default="refuse",
        help="finished units whose configuration, code or inputs have changed since: stop and name them (default), "
        "make them again, or take them as they are and note it in their records",
    )
    add = parser.add_argument_group("Slurm").add_argument
    add("--emit-slurm", type=Path, metavar="DIR", help="run nothing: write sbatch scripts and submit.sh")
    add("--gpus-per-node", type=count, metavar="N", help="GPUs of each node of the Slurm cluster (default: 8)")
    add("--hours", type=float, metavar="X", help="time limit of a Slurm job (default: 24)")
    add("--slurm", action="append", default=[], metavar="OPTION", help="e.g. --slurm=--partition=a100")


def _unit_options(parser: CommandParser) -> None:
    parser.add_argument("study", help="name of a study below the runs folder")
    parser.add_argument("unit", help="as `status` names it")
    parser.add_argument("--again", action="store_true", help="make it anew, whatever is there")
    parser.add_common("data")


def _status_options(parser: CommandParser) -> None:
    _add_study_folder(parser)
    parser.add_argument("--all", action="store_true", help="name every unit")
    parser.add_argument("--watch", action="store_true", help="live, until nobody is at work on it")
    text = "write it as a page, and print nothing else (the driver keeps <runs>/<study>/status.html)"
    parser.add_argument("--html", type=Path, metavar="FILE", help=text)


def _collect_options(parser: CommandParser) -> None:
    _add_study_folder(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write a copy of metrics.parquet here")


def _why_options(parser: CommandParser) -> None:
    _add_study_folder(parser, " or of a published zip")
    parser.add_argument("table", help="as the report names it: table5, 5, decisions, figure13; metrics: single cells")
    parser.add_argument("cell", nargs="*", help="words of its row and perhaps a column, as printed; beginnings do")
    parser.add_argument("--json", action="store_true", help="everything that is known, for machines")
    parser.add_argument("--recipe", help="SFT recipe of the tables (default: the study's first)")


def _publish_options(parser: CommandParser) -> None:
    _add_study_folder(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.zip", help="zip to write")
    text = "publish even if units are stale or missing; the manifest names them"
    parser.add_argument("--incomplete", action="store_true", help=text)
    parser.add_common("data")


def _clean_options(parser: CommandParser) -> None:
    _add_study_folder(parser)
    parser.add_argument("--exports", action="store_true", help="also exports that are scored and not needed any more")
    parser.add_argument("--all", action="store_true", help="the whole study, scores and report too")
    parser.add_argument("--yes", action="store_true", help="remove it; without, it is only listed")
    parser.add_common("data")


def _add_study_file(parser: CommandParser) -> None:
    parser.add_argument("study", help="a path, or the name of a file in configs/studies")
    parser.add_overrides()


def _add_study_folder(parser: CommandParser, also: str = "") -> None:
    parser.add_argument("study", help=f"name of a study below the runs folder, or the path of its folder{also}")


COMMANDS = {
    "plan": ("what a study takes: units, GPU-hours, tokens, disk, money, days", _plan_options),
    "run": ("run or resume a study, ending with its report", _run_options),
    "unit": ("do one unit of a study that was begun (what torchrun and Slurm start)", _unit_options),
    "status": ("what is done, at work, failed, stopped, stale or missing", _status_options),
    "collect": ("derive metrics.parquet from the scores that are there, and list what is missing", _collect_options),
    "why": ("from a number of the report back to scores, runs, commands, commit, data and hardware", _why_options),
    "publish": ("a zip to put beside a paper: scores, metrics, report, configs; no weights", _publish_options),
    "clean": ("say what may go (resume points, caches, logs) and, with --yes, remove it", _clean_options),
}
"""Name -> (what it does, what adds its options to a parser)."""
