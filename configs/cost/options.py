"""The options that say what hardware a plan is for: --gpu, --gpus, --peak-tflops, --mfu.

In: a command line. Out: `Hardware`.
"""

from __future__ import annotations

import argparse

from configs.arguments import count
from configs.cost.gpus import GPUS, find_gpu
from configs.cost.plan import Hardware
from configs.errors import ConfigError


def add_hardware_options(parser: argparse.ArgumentParser) -> None:
    """--gpu, --gpus, --peak-tflops and --mfu, which `hardware_of` reads."""
    default, add = Hardware(), parser.add_argument
    add("--gpu", default=default.gpu.name, metavar="NAME", help=f"GPU to plan for: {', '.join(GPUS)}")
    add("--gpus", type=count, default=default.count, metavar="N", help="number of GPUs that work together")
    add("--peak-tflops", type=float, metavar="X", help="dense bf16 peak of one, if not the data sheet's")
    add("--mfu", type=float, default=default.mfu, help=f"share of the peak that is reached (default: {default.mfu:g})")


def hardware_of(options: argparse.Namespace) -> Hardware:
    """Raises ConfigError for a GPU that is not known, or numbers that cannot be."""
    gpu = find_gpu(options.gpu)
    if options.peak_tflops is not None:
        gpu = gpu._replace(peak_flops=options.peak_tflops * 1e12)
    if not (gpu.peak_flops > 0 and 0 < options.mfu <= 1):
        raise ConfigError("--peak-tflops must be positive, --mfu above 0 and at most 1")
    return Hardware(gpu, options.gpus, options.mfu)
