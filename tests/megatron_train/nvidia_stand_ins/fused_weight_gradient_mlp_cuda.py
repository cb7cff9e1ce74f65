"""A stand-in for Apex's extension of this name: a matrix's gradient is added to a buffer in one call."""

from __future__ import annotations

from torch import Tensor

calls = 0
"""How often the kernel ran."""


def wgrad_gemm_accum_fp32(inputs: Tensor, grad_outputs: Tensor, main_grad: Tensor) -> None:
    """inputs [tokens, in], grad_outputs [tokens, out] -> added to main_grad float32 [out, in]."""
    global calls
    calls += 1
    main_grad.addmm_(grad_outputs.float().t(), inputs.float())
