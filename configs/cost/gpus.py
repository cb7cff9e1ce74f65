"""What is known of the GPUs that plans and utilisation speak of: peak and memory, by name.

Facts of NVIDIA's data sheets: dense bf16, without sparsity; memory in decimal bytes as sold.
"""

from __future__ import annotations

from typing import NamedTuple

from configs.errors import ConfigError


class Gpu(NamedTuple):
    name: str
    peak_flops: float
    """Dense bf16, in FLOP/s."""
    memory_bytes: int


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("H200", 989.5e12, 141 * 10**9),
        Gpu("GH200", 989.5e12, 96 * 10**9),
        Gpu("H100 PCIe", 756e12, 80 * 10**9),
        Gpu("H100 NVL", 835.5e12, 94 * 10**9),
        Gpu("H100", 989.5e12, 80 * 10**9),
        Gpu("A100", 312e12, 80 * 10**9),
        Gpu("L40S", 362e12, 48 * 10**9),
    )
}


def find_gpu(name: str) -> Gpu:
    """Raises ConfigError for a name that is not listed."""
    if name not in GPUS:
        raise ConfigError(f"unknown GPU {name!r}", valid=", ".join(GPUS), hint="or give --peak-tflops")
    return GPUS[name]


def recognise_gpu(cuda_name: str) -> Gpu | None:
    """The GPU that CUDA calls so, e.g. `NVIDIA H100 80GB HBM3`; None where it is not listed."""
    return next((gpu for name, gpu in GPUS.items() if name in cuda_name), None)
