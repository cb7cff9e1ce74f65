"""Milliseconds of each attention kernel at the paper's shapes (head_dim 256), forward alone and with its backward pass.

In: the shapes of 240m.yaml and 1b.yaml and the GPU. Out: JSON with, for each config, the kernels that give the right
numbers, their times, and why the others do not work. On a CPU, with --tiny, PyTorch's only kernel is timed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from configs.artifacts import write_json
from configs.load import load_train
from megatron_train.kernels.attention_probe import BACKENDS, Attend, Problem, _through, check
from megatron_train.kernels.device import median_ms
from megatron_train.model import attention

TINY = {"model.context_tokens": 64, "batch.micro_sequences": 1}


def cpu_kernel(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, _: Any) -> torch.Tensor:
    return attention.whole(query, key, value)


def cpu_ms(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - began)


def times(attend: Attend, problem: Problem) -> dict[str, Any]:
    """`forward_ms` and `forward_backward_ms`, or `failure`."""
    inputs, timer = problem.inputs(), median_ms if problem.device.type == "cuda" else cpu_ms

    def forward() -> torch.Tensor:
        return attend(*inputs, None)

    def both() -> object:
        output = forward()
        return torch.autograd.grad(output, inputs, torch.ones_like(output))

    try:
        check(attend, Problem(256, 2, problem.heads, problem.head_dim, problem.dtype, problem.device))
        return {"forward_ms": round(timer(forward), 3), "forward_backward_ms": round(timer(both), 3)}
    except Exception as error:  # whatever a kernel cannot do, it is the answer
        return {"failure": str(error).strip().split("\n")[0] or type(error).__name__}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="64 tokens, on whatever device there is")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="JSON file to write")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kernels = {name: partial(_through, backend) for name, backend in BACKENDS.items()}
    found: dict[str, Any] = {"torch": torch.__version__, "device": str(device), "configs": {}}
    if device.type == "cuda":
        found["device"] = torch.cuda.get_device_name(device)
    for name in ("240m.yaml", "1b.yaml"):
        config = load_train(name, TINY if options.tiny else {})
        shape, micro = config.model, config.batch.micro_sequences
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        problem = Problem(shape.context_tokens, micro, shape.heads, shape.head_dim, dtype, device)
        tried: dict[str, Attend] = kernels if device.type == "cuda" else {"cpu": cpu_kernel}
        rows = {kernel: times(attend, problem) for kernel, attend in tried.items()}
        size = {"positions": problem.positions, "sequences": micro, "heads": shape.heads, "head_dim": shape.head_dim}
        found["configs"][config.scale] = size | {"kernels": rows}
        write_json(options.output, found)
        for kernel, row in rows.items():
            print(f"{config.scale:<8}{kernel:<12}{row}")
        if all("failure" in row for row in rows.values()):
            sys.exit(f"{config.scale}: no fast kernel works")


if __name__ == "__main__":
    main()
