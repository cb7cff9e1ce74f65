"""Which attention kernel a run computes with, found by trying all of them where it runs.

In: the config and this process's GPU. Out: an `AttentionChoice`: the fastest, forward and backward at the run's own
shape, of PyTorch's kernels that give the right numbers. Why: what a kernel can do changes with head_dim, GPU and the
versions of PyTorch and cuDNN, and PyTorch's own choice ends, silently, at a kernel that is many times slower.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from configs.errors import ResourceError
from configs.schema import TrainConfig
from megatron_train.kernels.device import median_ms
from megatron_train.model import attention
from megatron_train.model.attention import CPU, VARLEN, AttentionChoice
from megatron_train.model.packing import Segments
from megatron_train.ranks.parallel import Ranks

BACKENDS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}
"""Never `math`: it is the fallback that is refused."""
CHECKED = (128, 96, 32)
"""Tokens of the short texts on which numbers are compared with the math kernel's."""
TOLERANCES = {torch.bfloat16: 2e-2, torch.float32: 5e-3}
"""Largest difference allowed, as a share of the largest number; bf16 rounds by up to 0.4 %, TF32 by 0.05 %."""

Attend = Callable[[Tensor, Tensor, Tensor, Segments | None], Tensor]
"""Queries, keys, values [positions, batch, heads, head_dim] -> [positions, batch, heads x head_dim]."""
Timer = Callable[[Callable[[], object]], float]
"""Milliseconds that something takes."""


@dataclass(frozen=True)
class Problem:
    """One call of attention, and a draw of its inputs."""

    positions: int
    batch: int
    heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device
    lengths: Sequence[int] | None = None
    """Lengths of the segments of a packed row; None: every sequence is one text."""

    def segments(self) -> Segments | None:
        if self.lengths is None:
            return None
        found = Segments.of(self.lengths)
        return Segments(found.boundaries.to(self.device), found.slots.to(self.device), found.longest)

    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys, values; values lie in memory as the model has them, between queries and keys."""
        draw = torch.Generator(self.device).manual_seed(0)
        shape = (self.positions, self.batch, self.heads, 3 * self.head_dim)
        mixed = torch.randn(shape, generator=draw, dtype=self.dtype, device=self.device)
        q, k, v = mixed.split(self.head_dim, dim=-1)
        return q.contiguous().requires_grad_(), k.contiguous().requires_grad_(), v.requires_grad_()

    def reference(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """The math kernel with an explicit mask, in fp64 (which no setting for matrix products makes coarser)."""
        mask = torch.ones(self.positions, self.positions, dtype=torch.bool, device=self.device).tril()
        if self.lengths is not None:
            owner = torch.arange(len(self.lengths)).repeat_interleave(torch.tensor(self.lengths)).to(self.device)
            mask &= owner[:, None] == owner
        q, k, v = (x.permute(1, 2, 0, 3).double() for x in (query, key, value))
        with sdpa_kernel(SDPBackend.MATH):
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).permute(2, 0, 1, 3).flatten(2)


def choose_attention(config: TrainConfig, ranks: Ranks) -> AttentionChoice:
    """The choice for this run, the same on every rank: the main rank's. Nothing is measured on a CPU.

    Raises ResourceError, with each kernel's reason, where only a slow one would work.
    """
    if ranks.device.type == "cpu":
        return AttentionChoice(CPU)
    measured: list[Any] = [{}, {}]
    if ranks.is_main:
        shape, micro = config.model, config.batch.micro_sequences
        one_text = Problem(
            positions=shape.context_tokens,
            batch=micro,
            heads=shape.heads // ranks.tensor_size,
            head_dim=shape.head_dim,
            dtype=torch.bfloat16 if config.precision == "bf16" else torch.float32,
            device=ranks.device,
        )
        measured = list(measure(candidates(packed=config.stage == "sft"), one_text, median_ms))
    if ranks.world > 1:
        dist.broadcast_object_list(measured, src=0, device=ranks.device)
    return decide(*measured)


def candidates(*, packed: bool) -> dict[str, Attend]:
    """Name -> kernel; varlen_attn too where rows will be `packed`."""
    found: dict[str, Attend] = {name: partial(_through, backend) for name, backend in BACKENDS.items()}
    return found | ({VARLEN: _through_varlen} if packed else {})


def _through(backend: SDPBackend, query: Tensor, key: Tensor, value: Tensor, _: Segments | None) -> Tensor:
    with sdpa_kernel(backend):
        return attention.whole(query, key, value)


def _through_varlen(query: Tensor, key: Tensor, value: Tensor, segments: Segments | None) -> Tensor:
    assert segments is not None
    return attention.by_varlen(attention.load_varlen(), query, key, value, segments)


def measure(kernels: Mapping[str, Attend], one_text: Problem, timer: Timer) -> tuple[dict[str, float], dict[str, str]]:
    """Milliseconds of the kernels that work, and why the others do not; `varlen` gets the same texts as one row."""
    milliseconds, failures = {}, {}
    for name, attend in kernels.items():
        problem, short = one_text, _resized(one_text, [sum(CHECKED)], batch=2)
        if name == VARLEN:
            problem = _resized(one_text, [one_text.positions] * one_text.batch, batch=1, packed=True)
            short = _resized(one_text, CHECKED, batch=1, packed=True)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                check(attend, short)
                milliseconds[name] = timer(_forward_and_backward(attend, problem))
            # A kernel that is not there, not built, or too large for the memory: whatever it is, it is the reason.
            except Exception as error:
                failures[name] = _reason(error, [str(warning.message) for warning in caught])
    return milliseconds, failures


def _resized(problem: Problem, lengths: Sequence[int], *, batch: int, packed: bool = False) -> Problem:
    same = (problem.heads, problem.head_dim, problem.dtype, problem.device)
    return Problem(sum(lengths), batch, *same, lengths=lengths if packed else None)


def check(attend: Attend, problem: Problem) -> None:
    """Raise RuntimeError unless output and gradients are the math kernel's."""
    inputs, segments = problem.inputs(), problem.segments()
    q, k, v = (x.detach().double().requires_grad_() for x in inputs)
    direction = torch.randn(
        (problem.positions, problem.batch, problem.heads * problem.head_dim),
        generator=torch.Generator(problem.device).manual_seed(1),
        dtype=torch.float64,
        device=problem.device,
    )
    output, expected = attend(*inputs, segments), problem.reference(q, k, v)
    gradients = torch.autograd.grad(output, inputs, direction.to(problem.dtype))
    expected_gradients = torch.autograd.grad(expected, (q, k, v), direction)
    tolerance = TOLERANCES[problem.dtype]
    for name, ours, theirs in zip(
        ("output", "gradient of queries", "gradient of keys", "gradient of values"),
        (output, *gradients),
        (expected, *expected_gradients),
        strict=True,
    ):
        difference = ((ours.double() - theirs).abs().max() / theirs.abs().max()).item()
        if not difference <= tolerance:  # not a number, too
            raise RuntimeError(f"wrong numbers: {name} differs by {difference:.1%} from the math kernel's")


def _forward_and_backward(attend: Attend, problem: Problem) -> Callable[[], object]:
    inputs, segments = problem.inputs(), problem.segments()

    def run() -> object:
        output = attend(*inputs, segments)
        return torch.autograd.grad(output, inputs, torch.ones_like(output))

    return run


def _reason(error: Exception, warned: Sequence[str]) -> str:
    """One line. PyTorch raises only "No available kernel" and warns of the reasons, those of disabled kernels too."""
    reasons = [
        re.sub(r"\s*\(Triggered internally at .*", "", text, flags=re.DOTALL)
        for text in warned
        if "not used because" not in text and "runtime disabled" not in text
    ]
    if "No available kernel" in str(error) and reasons:
        return " ".join(" ".join(dict.fromkeys(reasons)).split())
    return str(error).strip().split("\n")[0] or type(error).__name__


def decide(milliseconds: Mapping[str, float], failures: Mapping[str, str]) -> AttentionChoice:
    """The fastest kernel that works. Raises ResourceError where none does."""
    usable = {name: time for name, time in milliseconds.items() if name in BACKENDS}
    if not usable:
        reasons = "".join(f"\n    - {name}: {reason}" for name, reason in failures.items())
        raise ResourceError(
            f"no fast attention kernel works at this shape:{reasons}",
            hint="precision=bf16, a smaller model.head_dim, or another GPU; the slow kernel is not used by itself",
        )
    fastest = min(usable, key=lambda name: usable[name])
    return AttentionChoice(fastest, VARLEN in milliseconds, dict(milliseconds), dict(failures))
