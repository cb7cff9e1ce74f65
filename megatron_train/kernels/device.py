"""What a device can do and what it holds: its peak in FLOP/s, model FLOPs utilisation, memory in use.

In: the device, the FLOPs of a token (`configs.cost`), a measured speed. Out: numbers for the step line. A device whose
peak is not listed gets no utilisation: a wrong peak has made many published figures wrong.
"""

from __future__ import annotations

import resource
import statistics
from collections.abc import Callable
from typing import NamedTuple

import torch

from configs.cost.gpus import recognise_gpu
from configs.cost.model import Flops

WARM_UP, REPEATS = 3, 10


class Utilisation(NamedTuple):
    """Shares of the peak, under the two conventions of attention FLOPs."""

    full: float
    causal: float


def peak_flops(device: torch.device, precision: str) -> float | None:
    """FLOP/s of one device in bf16; None where it is not known."""
    if device.type != "cuda" or precision != "bf16":
        return None
    gpu = recognise_gpu(torch.cuda.get_device_name(device))
    return gpu.peak_flops if gpu else None


def utilisation(tokens_per_s: float, flops: Flops, peak: float, devices: int) -> Utilisation:
    """Model FLOPs utilisation of `devices` that train `tokens_per_s` together."""
    return Utilisation(*(tokens_per_s * each / (peak * devices) for each in (flops.full, flops.causal)))


def memory_bytes(device: torch.device) -> int:
    """Most memory this process has used: of the GPU, or resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def median_ms(work: Callable[[], object]) -> float:
    """Milliseconds that `work` takes by the GPU's own clock: the median of ten times, after three to warm up."""
    times = []
    for _ in range(WARM_UP + REPEATS):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times[WARM_UP:])
