"""What the two entry scripts share: arguments, the plan, and what is missing before it can start."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from configs.arguments import CommandParser
from configs.artifacts import MANIFEST, read_object
from configs.cost.description import describe
from configs.cost.options import add_hardware_options
from configs.cost.plan import RunPlan
from configs.errors import ArtifactError, ConfigError, ResourceError
from configs.layout import PROJECT_ROOT, data_root, runs_root, tokenized_dirs
from configs.load import load_mixture
from configs.runtime import signals
from configs.schema import TrainConfig
from megatron_train.job import Resume

DEFAULT_STUDY = "by-hand"
TOKENIZE_HINT = "(python -m mixtures.tokenize --study <study> --data <data> makes these)"


def parser(description: str, examples: str) -> CommandParser:
    """The parser with the arguments that pretraining and fine-tuning share."""
    result = CommandParser(description=description, examples=examples)
    result.add_argument(
        "--config", required=True, metavar="YAML[#PRESET]", help="training config, e.g. configs/1b.yaml"
    )
    result.add_common(
        "study", help="folder under the runs that this run belongs to (default: by-hand; fine-tuning: its parent's)"
    )
    result.add_common("data", "runs")
    result.add_argument("--dry-run", action="store_true", help="print the plan and stop; needs neither data nor GPU")
    result.add_argument(
        "--resume",
        type=resume,
        default="auto",
        metavar="auto|STEP|never",
        help="auto: go on from the newest whole checkpoint, skip a finished run (default); STEP: go on from the "
        "checkpoint of that step, even of a finished run, and remove what it wrote later; never: remove the run and "
        "start it again",
    )
    result.add_argument(
        "--verify", action="store_true", help="when done, compare the last export with transformers: logits, argmax"
    )
    add_hardware_options(result)
    result.add_overrides("e.g. seed=1 data.mixture=V2P1 model.layers=4")
    return result


def resume(text: str) -> Resume:
    """The value of --resume."""
    if text in ("auto", "never"):
        return text  # type: ignore[return-value]
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is neither auto nor never nor the number of a step")


def roots(arguments: argparse.Namespace) -> tuple[Path, Path]:
    return data_root(arguments.data), runs_root(arguments.runs)


def expect_stage(config: TrainConfig, stage: str, where: str) -> None:
    if config.stage != stage:
        script = {"pt": "pretrain.py", "sft": "sft.py"}[config.stage]
        raise ConfigError(
            f"stage is {config.stage!r}", where=where, valid=stage, hint=f"megatron_train/{script} runs it"
        )


def missing_data(config: TrainConfig, data: Path) -> list[str]:
    """Inputs of the run that mixtures.tokenize has not made yet; empty where all are there."""
    if config.stage == "pt":
        sources = [source for source, weight in load_mixture(config.data.mixture).weights.items() if weight]
        folders = tokenized_dirs(data, config.data.tokenizer, sources, ())
    else:  # the mixture of somebody else's Llama has no file here
        folders = tokenized_dirs(data, config.data.tokenizer, (), [config.data.sft_set])
    missing = [f"{name}: {folder}" for name, folder in folders.items() if not (folder / MANIFEST).is_file()]
    return missing + ([TOKENIZE_HINT] if missing else [])


def missing_device(config: TrainConfig) -> list[str]:
    """The device that the configured precision needs and this machine lacks; empty where it has one."""
    import torch

    if config.precision == "bf16" and not torch.cuda.is_available():
        return ["a CUDA device for precision: bf16 (on a CPU, small models train with precision=fp32)"]
    return []


def missing_tracker(config: TrainConfig) -> list[str]:
    """Packages that the configured tracking needs and this machine lacks; empty where nothing is missing."""
    if config.tracking.wandb_project is None or find_spec("wandb"):
        return []
    return ["the package wandb for tracking.wandb_project (pip install -c constraints.txt wandb)"]


def check_can_start(config: TrainConfig, data: Path) -> None:
    """Raises ResourceError that lists everything this machine lacks for the run: data, device, tracker."""
    if missing := missing_data(config, data) + missing_device(config) + missing_tracker(config):
        refuse(missing)


def verify(run: Path) -> None:
    """Compare the finished run's last export with transformers (main rank); ends the command where they differ."""
    if os.environ.get("RANK", "0") != "0":
        return
    # A process of its own: this one may be one of many, and its GPU is full.
    launched = ("RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(launched)}
    command = [sys.executable, "-m", "megatron_train.compare", str(run.resolve())]
    if code := subprocess.run(command, cwd=PROJECT_ROOT, env=environment, check=False).returncode:
        sys.exit(code)


def launch(arguments: argparse.Namespace, plan: Callable[[], object], run: Callable[[], Path]) -> None:
    """Do what the command line asks: print the plan for --dry-run, else run, then compare for --verify."""
    if arguments.dry_run:
        plan()
        return
    with signals.awaited():  # a signal that comes from here on ends the run after a step that is saved
        done = run()
    if arguments.verify:
        verify(done)


def refuse(missing: Sequence[str]) -> NoReturn:
    """Raise ResourceError that lists everything missing at once."""
    raise ResourceError("cannot start; missing:\n" + "\n".join(f"    - {item}" for item in missing))


def show_plan(plan: RunPlan, supply: str = "") -> None:
    """Print what is about to happen (main rank only); `supply` is the table of sources where shards exist."""
    if os.environ.get("RANK", "0") != "0":
        return
    print("\n".join(filter(None, [describe(plan), supply])), flush=True)


def check_tokenizer(config: TrainConfig, folder: Path, used: Mapping[str, str]) -> None:
    """Refuse token ids of another tokenizer (`used`: what -> its tokenizer's sha256), or one the model cannot embed."""
    manifest = read_object(folder / MANIFEST)
    if manifest["entries"] > config.model.vocab:
        raise ConfigError(
            f"model.vocab ({config.model.vocab}) is smaller than the tokenizer ({manifest['entries']} entries)",
            where=folder,
            valid=f"model.vocab >= {manifest['entries']}",
        )
    for what, sha256 in used.items():
        if sha256 != manifest["files"]["tokenizer.json"]["sha256"]:
            raise ArtifactError(f"{what} was tokenized with another tokenizer", where=folder, hint=TOKENIZE_HINT)
