"""What a run reads: the mixture's table, and the documents behind any optimizer step.

In: a study or a training config, its token shards, and a step. Out: for each sequence of the step its source, the
documents in it (input file, row, token range) and its text; coloured by source on a terminal, plain elsewhere. These
are the samples that `megatron_train` trains on.
"""

from __future__ import annotations

import argparse
import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from configs.arguments import CommandParser
from configs.errors import ConfigError, user_errors
from configs.layout import data_root, tokenizer_dir
from configs.load import load_study, load_train, parse_overrides, pretrain_config
from configs.schema import TrainConfig
from mixtures.blend.samples import read_sample
from mixtures.blend.supply import supplies, table

if TYPE_CHECKING:
    from rich.console import Console

    from mixtures.blend.blend import Blend
    from mixtures.tokens.tokenizer import Tokenizer

COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "red", "bright_cyan", "bright_yellow", "bright_green")
MARGIN = "    | "

EXAMPLES = """examples:
  python -m mixtures.show --study mini --mixture V1P0                          (what it takes from each source)
  python -m mixtures.show --study mini --mixture V1P0 --scale mini_s --step 120
  python -m mixtures.show --study mini --mixture V1P0 --scale mini_s --step 120 --sample 3 --chars 2000
  python -m mixtures.show --study mini --mixture V1P0 --scale mini_s --steps 100:110 --chars 0
  python -m mixtures.show --config configs/1b.yaml --step 1200 data.mixture=V2P1 seed=1
"""


def show_step(
    console: Console, blend: Blend, tokenizer: Tokenizer, step: int, batch: int, only: int | None, chars: int
) -> None:
    """Print the sequences of an optimizer step (counted from 1), or the one numbered `only` (from 0)."""
    from rich.text import Text

    from mixtures.blend.blend import samples_of_step

    numbers = samples_of_step(step, batch)
    by_source = Counter(blend.source_of(number) for number in numbers)
    counts = ", ".join(f"{source} {count}" for source, count in by_source.most_common())
    console.print(
        Text(f"step {step}: {batch} sequences x {blend.context_tokens} tokens ({counts})", style="bold"),
        soft_wrap=True,
    )
    for place, number in enumerate(numbers):
        if only not in (None, place):
            continue
        sample = read_sample(blend, number)
        colour = COLOURS[blend.sources.index(sample.source) % len(COLOURS)]
        head = f"[{place}] {sample.source}, sample {number:,} of the run, epoch {sample.epoch}"
        console.print(Text(head, style=f"bold {colour}"), soft_wrap=True)
        for part in sample.stretches:
            what = f"tokens {part.start:,} to {part.stop - 1:,} of {part.length:,}"
            console.print(Text(f"    {part.unit} row {part.row:,}: {what}", style="dim"), soft_wrap=True)
        if chars:
            text = _shortened(tokenizer.decode(sample.tokens), chars)
            console.print(Text(textwrap.indent(text, MARGIN, lambda line: True), style=colour), soft_wrap=True)


def _shortened(text: str, chars: int) -> str:
    return text if len(text) <= chars else f"{text[:chars]}… ({len(text) - chars:,} more characters)"


# ---------------------------------------------------------------------------------------------- command line


def _configs(arguments: argparse.Namespace) -> list[TrainConfig]:
    """The runs that the arguments name: one, or without --scale one for each scale of the study."""
    if arguments.config:
        return [load_train(arguments.config, parse_overrides(arguments.overrides))]
    study = load_study(arguments.study, parse_overrides(arguments.overrides))
    if arguments.scale is not None and arguments.scale not in study.scales:
        raise ConfigError(f"no scale {arguments.scale!r}", where=f"study {study.name}", valid=", ".join(study.scales))
    mixture = arguments.mixture or study.mixtures[0]
    scales = [arguments.scale] if arguments.scale else list(study.scales)
    return [pretrain_config(study, scale, mixture, arguments.seed) for scale in scales]


def _steps(arguments: argparse.Namespace, config: TrainConfig) -> range:
    """The steps asked for, both ends included; empty where only the table is. Raises ConfigError outside the run."""
    if arguments.step is None and arguments.steps is None:
        return range(0)
    try:
        first, last = [arguments.step] * 2 if arguments.step is not None else map(int, arguments.steps.split(":"))
    except ValueError:
        raise ConfigError(f"--steps {arguments.steps} is not FIRST:LAST", valid="e.g. --steps 100:110") from None
    if not 1 <= first <= last <= config.pretraining_steps:
        asked = first if first == last else f"{first}:{last}"
        raise ConfigError(f"no step {asked} in this run", valid=f"1 to {config.pretraining_steps}")
    if arguments.sample is not None and not 0 <= arguments.sample < config.batch.sequences:
        raise ConfigError(f"no sequence {arguments.sample} in a step", valid=f"0 to {config.batch.sequences - 1}")
    return range(first, last + 1)


def _parser() -> CommandParser:
    text = "Print what a mixture takes from each source, and the documents that a training step reads."
    parser = CommandParser(prog="python -m mixtures.show", description=text, examples=EXAMPLES)
    run = parser.add_mutually_exclusive_group(required=True)
    run.add_argument("--study", help="a study: its name or YAML")
    run.add_argument("--config", metavar="YAML[#PRESET]", help="a training config instead, as pretrain.py takes it")
    parser.add_argument("--scale", help="of the study (default: all for the table, the first for a step)")
    parser.add_argument("--mixture", help="of the study (default: its first)")
    parser.add_argument("--seed", type=int, default=0, help="of the study's run (default: 0)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--step", type=int, metavar="N", help="an optimizer step, counted from 1")
    which.add_argument("--steps", metavar="FIRST:LAST", help="several, both included")
    parser.add_argument("--sample", type=int, metavar="K", help="only sequence K of a step, from 0")
    parser.add_argument("--chars", type=int, default=300, metavar="N", help="characters of each text (default: 300)")
    parser.add_common("data")
    parser.add_overrides("of the study or the config")
    return parser


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    arguments = _parser().parse(argv)
    data = data_root(arguments.data)
    configs = _configs(arguments)
    steps = _steps(arguments, configs[0])

    from rich.console import Console

    from mixtures.blend.blend import open_blend, open_shards

    console = Console(highlight=False)
    if not steps:
        for config in configs:
            shards = open_shards(config, data)
            console.print(f"{config.scale}, mixture {config.data.mixture}, {config.pretraining_steps:,} steps")
            console.print(table(supplies(config, {s: x.num_tokens for s, x in shards.items()})), soft_wrap=True)
        return

    from mixtures.tokens.tokenizer import Tokenizer

    config = configs[0]
    tokenizer = Tokenizer.load(tokenizer_dir(data, config.data.tokenizer))
    blend = open_blend(config, open_shards(config, data), data)
    for step in steps:
        show_step(console, blend, tokenizer, step, config.batch.sequences, arguments.sample, arguments.chars)


if __name__ == "__main__":
    main()
