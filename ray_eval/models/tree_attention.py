"""Attention in which a token sees its ancestors in a tree (`trees`), in the form that is fastest where it runs.

padded: PyTorch's scaled_dot_product_attention with a mask of numbers, on any device.
flat: FlexAttention over one long row, which skips every block of 128 x 128 that the trees leave empty; on CUDA, where a
probe at the model's own shape finds that it is right and faster.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:  # importing it brings all of TorchDynamo, which takes longer than scoring a small checkpoint
    from torch.nn.attention.flex_attention import BlockMask

Form = Literal["padded", "flat"]
Mask: TypeAlias = "Tensor | BlockMask"
"""padded: bool [B, 1, T, T], True where a query (row) sees a key.   flat: a BlockMask over [T, T]."""

BLOCK = 128
QUERIES = 64
"""Attended to at once on a CPU."""
PROBED_TREES = (((64, 24), 340), ((300, 3), 40))
"""((tokens shared, tokens of each of four branches), rows): about a batch of short and one of long questions."""
TOLERANCE = {torch.bfloat16: 2e-2, torch.float32: 5e-3}
"""Largest difference of the two forms, as a share of the largest number; bf16 rounds by up to 0.4 %, TF32 by 0.05 %."""


def tree_mask(ends: Tensor, form: Form) -> Mask:
    """ends: int64 [B, T], the place behind each token's last descendant; 0 for padding, which sees itself only."""
    places = torch.arange(ends.shape[1], device=ends.device)
    if form == "padded":
        queries, keys = places[None, :, None], places[None, None, :]
        return ((keys == queries) | ((keys < queries) & (queries < ends[:, None, :])))[:, None]
    from torch.nn.attention.flex_attention import BlockMask

    (until,) = ends

    def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query < until[key])

    # A block of keys is needed by the blocks of queries from its own to the one in which its last descendant lies.
    count = -(-len(until) // BLOCK)
    last = F.pad(until, (0, count * BLOCK - len(until))).view(count, BLOCK).amax(-1)
    blocks = torch.arange(count, device=ends.device)
    needed = (blocks[None] <= blocks[:, None]) & (last[None] > blocks[:, None] * BLOCK)
    indices = torch.argsort(~needed, dim=-1, stable=True).to(torch.int32)
    return BlockMask.from_kv_blocks(
        needed.sum(-1).to(torch.int32)[None, None],
        indices[None, None],
        BLOCK_SIZE=BLOCK,
        mask_mod=sees,
        seq_lengths=(len(until), len(until)),
        compute_q_blocks=False,
    )


@functools.cache
def _flex(compiled: bool) -> Callable[..., Any]:
    """flex_attention, compiled on a GPU. Without compilation it holds all scores in memory, good for tests on a CPU."""
    from torch.nn.attention.flex_attention import flex_attention

    kernel: Callable[..., Any] = flex_attention
    return torch.compile(kernel, dynamic=True) if compiled else kernel


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Mask | None) -> Tensor:
    """[B, heads, T, head_dim] each (keys and values may have fewer heads) -> [B, heads, T, head_dim].

    A padded mask comes as numbers of the queries' dtype, 0 or -inf (`as_numbers`).
    """
    grouped = query.shape[1] != key.shape[1]
    if not (mask is None or isinstance(mask, Tensor)):
        out: Tensor = _flex(query.is_cuda)(query, key, value, block_mask=mask, enable_gqa=grouped)
        return out
    length = query.shape[2]
    if query.is_cuda or length <= QUERIES:
        causal = mask is None
        return F.scaled_dot_product_attention(query, key, value, mask, is_causal=causal, enable_gqa=grouped)
    # PyTorch's kernel for CPUs computes the masked half of all scores too; in blocks of queries most of it is left out.
    if mask is None:
        mask = torch.full((length, length), float("-inf"), dtype=query.dtype).triu_(1)
    out = torch.empty_like(query.transpose(1, 2)).transpose(1, 2)
    for start in range(0, length, QUERIES):
        end = min(start + QUERIES, length)
        q, k, v, seen = query[:, :, start:end], key[:, :, :end], value[:, :, :end], mask[..., start:end, :end]
        out[:, :, start:end] = F.scaled_dot_product_attention(q, k, v, seen, enable_gqa=grouped)
    return out


def as_numbers(mask: Mask | None, dtype: torch.dtype) -> Mask | None:
    """A padded mask as what is added to scores; once a batch, or every layer would make it anew."""
    if not isinstance(mask, Tensor):
        return mask
    zero, hidden = (torch.tensor(number, dtype=dtype, device=mask.device) for number in (0.0, float("-inf")))
    return torch.where(mask, zero, hidden)


@dataclass(frozen=True)
class Heads:
    """What attention depends on."""

    queries: int
    keys: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device


def usable_forms(heads: Heads) -> tuple[tuple[Form, ...], str]:
    """The forms that work for a model, the fastest first, and why; on CUDA by trying both."""
    if heads.device.type != "cuda":
        return ("padded",), "no GPU"
    times: dict[Form, float] = {"padded": 0.0, "flat": 0.0}
    try:
        for (shared, branch), rows in PROBED_TREES:
            every, ends = probe_inputs(heads, shared, branch, rows)
            padded, flat = (probe_form(form, heads, every, ends) for form in ("padded", "flat"))
            times["padded"], times["flat"] = times["padded"] + padded[1], times["flat"] + flat[1]
            difference = float((flat[0] - padded[0]).abs().max() / padded[0].abs().max())
            if not difference <= TOLERANCE[heads.dtype]:
                return ("padded",), f"flat attention differs by {difference:.1e}"
    except Exception as error:  # whatever a compiler can raise: the other form always works
        reason = str(error).partition("\n")[0]
        return ("padded",), f"flat attention does not work here: {type(error).__name__}: {reason}"
    return tuple(sorted(times, key=times.__getitem__)), f"flat {times['flat']:.2f} ms, padded {times['padded']:.2f} ms"


def probe_inputs(heads: Heads, shared: int, branch: int, rows: int) -> tuple[Tensor, Tensor]:
    """Queries, keys and values of `rows` trees with four branches [rows, T, heads, head_dim]; ends [rows, T]."""
    tree = [shared + 4 * branch] * shared + [shared + (i + 1) * branch for i in range(4) for _ in range(branch)]
    ends = torch.tensor(tree, device=heads.device).repeat(rows, 1)
    draw = torch.Generator(heads.device).manual_seed(0)
    shape = (*ends.shape, heads.queries + 2 * heads.keys, heads.head_dim)
    return torch.randn(shape, generator=draw, dtype=heads.dtype, device=heads.device), ends


def probe_form(form: Form, heads: Heads, every: Tensor, ends: Tensor) -> tuple[Tensor, float]:
    """What attention over `probe_inputs` gives, fp32 [rows, heads, T, head_dim], and milliseconds (0 on a CPU)."""
    rows, width = ends.shape
    if form == "flat":
        every = every.flatten(0, 1)[None]
        ends = (ends + torch.arange(rows, device=ends.device)[:, None] * width).view(1, -1)
    q, k, v = every.transpose(1, 2).split([heads.queries, heads.keys, heads.keys], dim=1)
    mask = as_numbers(tree_mask(ends, form), heads.dtype)
    out = attend(q, k, v, mask)
    times = []
    for _ in range(5 if heads.device.type == "cuda" else 0):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        attend(q, k, v, mask)
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    whole = out if form == "padded" else out[0].unflatten(1, (rows, width)).transpose(0, 1)
    return whole.float(), sorted(times)[2] if times else 0.0
