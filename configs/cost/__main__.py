"""`python -m configs.cost`: print what a run or a study takes, before anything is started.

In: a training or study YAML and the hardware to plan for. Out: the printed plan: parameters, FLOPs, tokens, steps,
passes over each source, memory, disk and GPU-hours. No torch, so that a plan needs no GPU and answers at once.
"""

from __future__ import annotations

from configs.arguments import CommandParser
from configs.cost.description import describe
from configs.cost.options import add_hardware_options, hardware_of
from configs.cost.plan import plan_run, plan_study
from configs.errors import user_errors
from configs.load import find_config, load_study, load_train, parse_overrides, read_yaml

EXAMPLES = """examples:
  python -m configs.cost configs/1b.yaml
  python -m configs.cost configs/1b_sft.yaml#text batch.micro_sequences=2
  python -m configs.cost configs/studies/paper.yaml --gpu H100 --gpus 64 --mfu 0.4
"""


@user_errors
def main(arguments: list[str] | None = None) -> None:
    text = "Print what a training run or a study takes."
    parser = CommandParser(prog="python -m configs.cost", description=text, examples=EXAMPLES)
    parser.add_argument("config", help="a training YAML (optionally #preset) or a study YAML")
    parser.add_overrides("dotted overrides of it")
    add_hardware_options(parser)
    args = parser.parse(arguments)
    hardware = hardware_of(args)
    overrides = parse_overrides(args.overrides)
    if "scales" in read_yaml(find_config(args.config.partition("#")[0])):
        print(describe(plan_study(load_study(args.config, overrides), hardware=hardware)))
    else:
        print(describe(plan_run(load_train(args.config, overrides), hardware=hardware)))


if __name__ == "__main__":
    main()
