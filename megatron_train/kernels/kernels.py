"""Which kernels a run computes with: measured where it starts, kept with it, printed.

In: the config and the device. Out: `Kernels`, also as <run>/kernels.json. Kernels round differently, so that a run
that is resumed on the same machine takes those of its start instead of measuring again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from configs.artifacts import read_object, write_json
from configs.schema import TrainConfig
from megatron_train.kernels.attention_probe import choose_attention
from megatron_train.kernels.loss_chunk import choose_chunk
from megatron_train.model import attention
from megatron_train.model.attention import AttentionChoice
from megatron_train.model.mcore import ColumnParallelLinear
from megatron_train.model.model import LanguageModel
from megatron_train.model.norms import NormKernel, choose_norm
from megatron_train.ranks.parallel import Ranks

VERSION = 1


@dataclass(frozen=True)
class Kernels:
    norm: NormKernel
    attention: AttentionChoice
    loss_chunk_tokens: int
    loss_ms: dict[int, float]
    """Milliseconds of a micro-batch's loss by tokens of a piece, where they were measured."""
    compiled: bool

    def compile(self, model: LanguageModel) -> None:
        """Compile the blocks where asked: each by itself, because all are alike and share what is compiled."""
        if not self.compiled:
            return
        # What earlier runs of this process compiled counts towards the number after which the compiler gives up.
        torch.compiler.reset()
        for module in model.decoder.modules():
            if isinstance(module, ColumnParallelLinear):
                # megatron's asynchronous all-reduce would cut the graph; this one the compiler can trace.
                module.allreduce_dgrad = False
        for layer in model.decoder.layers:
            layer.compile()

    def lines(self, config: TrainConfig, optimizer: str) -> list[str]:
        """The start-up summary: which kernel serves which part."""
        by = "each by itself"
        if self.compiled:
            by = "the compiler's, with their neighbours"
        elif self.attention.backend != attention.CPU and config.model.activation == "swiglu":
            by = "megatron's fused SwiGLU, the others by themselves"
        tokens = min(self.loss_chunk_tokens, config.batch.micro_sequences * config.model.context_tokens)
        measured = ", ".join(f"{size:,}: {time:.1f} ms" for size, time in self.loss_ms.items())
        return [
            f"norm         {self.norm.name}{', in the blocks compiled' if self.compiled else ''}",
            f"attention    {self.attention.describe()}",
            f"MLP          {config.model.activation}, rotary turn, residuals: {by}",
            f"loss         with the output layer, {tokens:,} tokens at a time" + (f" ({measured})" if measured else ""),
            f"optimizer    {optimizer}",
        ]


def choose_kernels(config: TrainConfig, ranks: Ranks, record: Path) -> Kernels:
    """Measure, or read `record` where it was written on the same kind of machine; every rank chooses alike.

    Raises ResourceError where a GPU has no attention kernel for the shape but the slow one.
    """
    compiled = ranks.device.type == "cuda" if config.compile is None else config.compile
    norm = choose_norm(ranks.device, compiled=compiled)
    machine = _machine(config, ranks)
    found: list[Any] = [_recorded(record, machine) if ranks.is_main else None]
    if ranks.world > 1:
        dist.broadcast_object_list(found, src=0)
    if found[0] is None:
        chosen = choose_attention(config, ranks)
        chunk, times = choose_chunk(config, ranks)
    else:
        chosen = AttentionChoice(**found[0]["attention"])
        chunk, times = found[0]["loss_chunk_tokens"], {int(k): v for k, v in found[0]["loss_ms"].items()}
    kernels = Kernels(norm, chosen, config.loss_chunk_tokens or chunk, times, compiled)
    attention.use(chosen)
    if ranks.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(ranks.device)  # what was measured here is not the run's
    if ranks.is_main:
        write_json(
            record,
            {
                "version": VERSION,
                "machine": machine,
                "norm": norm.name,
                "attention": asdict(chosen),
                "loss_chunk_tokens": chunk,
                "loss_ms": times,
                "compiled": compiled,
            },
        )
    return kernels


def _machine(config: TrainConfig, ranks: Ranks) -> dict[str, Any]:
    """What measurements depend on, besides the model's shape, which the run folder's inputs hold."""
    is_gpu = ranks.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(ranks.device) if is_gpu else "cpu",
        "torch": torch.__version__,
        "cuda": torch.version.cuda if is_gpu else None,
        "tensor": ranks.tensor_size,
        "micro_sequences": config.batch.micro_sequences,
    }


def _recorded(record: Path, machine: dict[str, Any]) -> dict[str, Any] | None:
    if not record.is_file():
        return None
    content: dict[str, Any] = read_object(record)
    return content if (content.get("version"), content.get("machine")) == (VERSION, machine) else None
