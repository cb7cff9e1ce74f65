"""The programs that train_throughput.py compares, each with the same weights, shapes, batch and precision.

    ours            megatron_train, as its loop runs it (tests/train_step.py)
    megatron-core   its GPTModel with its local layer spec and its cross-entropy on whole logits
    PyTorch         a Llama in plain PyTorch, below
    transformers    LlamaForCausalLM with SDPA attention

All but ours take torch's fused AdamW and clip_grad_norm_. In bf16 they compute with bf16 weights and keep masters,
moments and the sum of micro-batches' gradients in fp32, as ours does and as Megatron's own optimizer does. That is
faster than autocast, which casts every weight anew in each forward pass: the comparison is no easier for ours.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from train_step import Training

from configs.schema import ModelShape, TrainConfig
from megatron_train.checkpoints.export import gather, hf_config
from megatron_train.data import MicroBatch
from megatron_train.model.mcore import GPTModel, TransformerConfig
from megatron_train.model.model import build_model
from megatron_train.ranks.parallel import Ranks

Loss = Callable[[Tensor, Tensor], Tensor]
"""Tokens and labels, int64 [sequences, positions] each -> their mean loss."""

CPU_STAND_INS = [
    "megatron-core: causal mask and score buffer on the CPU, where DotProductAttention asks for CUDA; same arithmetic",
    "megatron-core: rotary frequencies stay on the CPU; dropout's random numbers (none, at 0) without its CUDA states",
]


class Contender(Protocol):
    def step(self, batch: list[MicroBatch], lr: float) -> Tensor:
        """Forward, backward, clipping, AdamW; returns the mean loss of a token before the update."""
        ...


@dataclass(frozen=True)
class Start:
    """What all contenders start from."""

    config: TrainConfig
    ranks: Ranks
    megatron: dict[str, Tensor]
    """Our initial weights by megatron's names, on the CPU."""
    llama: dict[str, Tensor]
    """The same by Hugging Face's names."""

    @classmethod
    def of(cls, config: TrainConfig, ranks: Ranks) -> Start:
        model = build_model(config.model, tensor_parallel=1, device=ranks.device, seed=config.seed)
        megatron = {name: p.detach().cpu().clone() for name, p in model.named_parameters()}
        return cls(config, ranks, megatron, {name: t.clone() for name, t in gather(model, config.model, ranks).items()})


class TorchTraining:
    """A module with PyTorch's own optimizer."""

    def __init__(self, model: nn.Module, loss: Loss, start: Start) -> None:
        # Ours may have narrowed PyTorch's choice of attention kernels for the process.
        for kernel in ("flash", "mem_efficient", "cudnn", "math"):
            getattr(torch.backends.cuda, f"enable_{kernel}_sdp")(True)
        model.to(start.ranks.device).train()
        self.loss, o = loss, start.config.optimizer
        self.clip = o.clip_norm or float("inf")
        named = list(model.named_parameters())
        self.weights = [parameter for _, parameter in named]
        self.masters = self.weights
        if start.config.precision == "bf16":
            self.masters = [nn.Parameter(weight.detach().clone()) for weight in self.weights]
            for weight in self.weights:
                weight.data = weight.data.to(torch.bfloat16)
        groups: dict[float, list[nn.Parameter]] = {o.weight_decay: [], 0.0: []}
        for (name, parameter), master in zip(named, self.masters, strict=True):
            groups[o.weight_decay if parameter.dim() > 1 and "embed" not in name else 0.0].append(master)
        self.adam = torch.optim.AdamW(
            [{"params": group, "weight_decay": decay} for decay, group in groups.items()],
            betas=(o.beta1, o.beta2),
            eps=o.eps,
            fused=True,
        )

    def step(self, batch: list[MicroBatch], lr: float) -> Tensor:
        total = torch.zeros((), device=batch[0].tokens.device)
        for micro in batch:
            loss = self.loss(micro.tokens, micro.labels) / len(batch)
            loss.backward()
            self._collect()
            total += loss.detach()
        nn.utils.clip_grad_norm_(self.masters, self.clip)
        for group in self.adam.param_groups:
            group["lr"] = lr
        self.adam.step()
        if self.masters is not self.weights:
            torch._foreach_copy_([w.data for w in self.weights], [m.data for m in self.masters])
        self.adam.zero_grad()
        return total

    def _collect(self) -> None:
        if self.masters is self.weights:
            return
        for master, weight in zip(self.masters, self.weights, strict=True):
            assert weight.grad is not None
            master.grad = weight.grad.float() if master.grad is None else master.grad.add_(weight.grad)
            weight.grad = None


def ours(start: Start, *, compiled: bool) -> Contender:
    return Training(start.config, start.ranks, compiled=compiled)


def stock_megatron(start: Start) -> Contender:
    shape, cuda = start.config.model, start.ranks.device.type == "cuda"
    # megatron warns about Apex, and about settings of its own that it deprecates.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
        from megatron.core.tensor_parallel.random import initialize_rng_tracker, model_parallel_cuda_manual_seed

        model = GPTModel(
            _stock_config(shape, cuda, bf16=start.config.precision == "bf16"),
            get_gpt_layer_local_spec(normalization="RMSNorm"),
            vocab_size=shape.vocab,
            max_sequence_length=shape.context_tokens,
            share_embeddings_and_output_weights=shape.tied_embeddings,
            position_embedding_type="rope",
            rotary_base=shape.rope_base,
        )
    missing, unexpected = model.load_state_dict(start.megatron, strict=False)
    assert not unexpected and all("_extra_state" in name for name in missing), (missing, unexpected)
    if cuda:
        model_parallel_cuda_manual_seed(0)
    else:
        initialize_rng_tracker(inference_rng_tracker=True, force_reset=True)
    # What megatron makes for CUDA in the first forward pass, it keeps.
    first = [_megatron_on_cpu()] * (not cuda)

    def loss(tokens: Tensor, labels: Tensor) -> Tensor:
        with first.pop() if first else nullcontext():
            return model(tokens, None, None, labels=labels).mean()

    return TorchTraining(model, loss, start)


def _stock_config(shape: ModelShape, cuda: bool, bf16: bool) -> TransformerConfig:
    """On a GPU with the fusions that need neither Apex nor TransformerEngine (scaled softmax: where it is built)."""
    swiglu = shape.activation == "swiglu"
    return TransformerConfig(
        num_layers=shape.layers,
        hidden_size=shape.hidden,
        num_attention_heads=shape.heads,
        kv_channels=shape.head_dim,
        ffn_hidden_size=shape.ffn_hidden,
        gated_linear_unit=True,
        activation_func=F.silu if swiglu else F.gelu,
        bias_activation_fusion=cuda and swiglu,
        bias_dropout_fusion=cuda,
        masked_softmax_fusion=bf16 and find_spec("scaled_upper_triang_masked_softmax_cuda") is not None,
        gradient_accumulation_fusion=False,
        apply_rope_fusion=False,
        add_bias_linear=False,
        normalization="RMSNorm",
        layernorm_epsilon=shape.norm_eps,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        bf16=bf16,
        params_dtype=torch.float32,
        use_cpu_initialization=True,
    )


@contextmanager
def _megatron_on_cpu() -> Iterator[None]:
    from megatron.core.fusions import fused_softmax

    @functools.cache
    def causal_mask(positions: int) -> Tensor:
        return torch.ones(positions, positions, dtype=torch.bool).triu(1)

    fused_softmax.get_default_causal_mask = causal_mask
    with mock.patch.object(torch.cuda, "current_device", lambda: torch.device("cpu")):
        yield


def plain_pytorch(start: Start, *, compiled: bool) -> Contender:
    model = PlainLlama(start.config.model)
    model.load(start.llama)
    return TorchTraining(model, torch.compile(model) if compiled else model, start)


def transformers_llama(start: Start) -> Contender:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**hf_config(start.config.model, torch.float32), attn_implementation="sdpa", use_cache=False)
    model = LlamaForCausalLM(config)
    model.load_state_dict(start.llama, strict=not start.config.model.tied_embeddings)

    def loss(tokens: Tensor, labels: Tensor) -> Tensor:
        # Its own loss shifts the labels; ours are shifted already. Logits in fp32, as there.
        return F.cross_entropy(model(tokens).logits.float().flatten(0, 1), labels.flatten())

    return TorchTraining(model, loss, start)


class PlainBlock(nn.Module):
    """Pre-norm attention with rotary positions and a gated MLP; no biases."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        width = shape.heads * shape.head_dim
        self.heads = shape.heads
        self.gate = F.silu if shape.activation == "swiglu" else F.gelu
        self.norm1, self.norm2 = (nn.RMSNorm(shape.hidden, eps=shape.norm_eps) for _ in range(2))
        self.qkv = nn.Linear(shape.hidden, 3 * width, bias=False)
        self.proj = nn.Linear(width, shape.hidden, bias=False)
        self.gate_up = nn.Linear(shape.hidden, 2 * shape.ffn_hidden, bias=False)
        self.down = nn.Linear(shape.ffn_hidden, shape.hidden, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """[sequences, positions, hidden] -> the same; cos and sin [positions, head_dim]."""
        q, k, v = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = ((t * cos + torch.cat((-t.chunk(2, -1)[1], t.chunk(2, -1)[0]), -1) * sin) for t in (q, k))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(attended.transpose(1, 2).flatten(2))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, -1)
        return x + self.down(self.gate(gate) * up)


class PlainLlama(nn.Module):
    """Llama as one writes it in PyTorch."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.vocab, shape.hidden)
        self.blocks = nn.ModuleList(PlainBlock(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.hidden, eps=shape.norm_eps)
        self.head = nn.Linear(shape.hidden, shape.vocab, bias=False)
        if shape.tied_embeddings:
            self.head.weight = self.embedding.weight
        frequencies = shape.rope_base ** (-torch.arange(0, shape.head_dim, 2) / shape.head_dim)
        angles = torch.outer(torch.arange(shape.context_tokens), frequencies).repeat(1, 2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, tokens: Tensor, labels: Tensor) -> Tensor:
        x = self.embedding(tokens)
        cos, sin = self.cos.to(x.dtype), self.sin.to(x.dtype)
        for block in self.blocks:
            x = block(x, cos, sin)
        return F.cross_entropy(self.head(self.norm(x)).float().flatten(0, 1), labels.flatten())

    @torch.no_grad()
    def load(self, llama: dict[str, Tensor]) -> None:
        """Weights by Hugging Face's names."""
        self.embedding.weight.copy_(llama["model.embed_tokens.weight"])
        self.norm.weight.copy_(llama["model.norm.weight"])
        if "lm_head.weight" in llama:
            self.head.weight.copy_(llama["lm_head.weight"])
        for i, block in enumerate(self.blocks):
            for weight, names in {
                block.norm1.weight: ["input_layernorm"],
                block.norm2.weight: ["post_attention_layernorm"],
                block.qkv.weight: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
                block.proj.weight: ["self_attn.o_proj"],
                block.gate_up.weight: ["mlp.gate_proj", "mlp.up_proj"],
                block.down.weight: ["mlp.down_proj"],
            }.items():
                weight.copy_(torch.cat([llama[f"model.layers.{i}.{name}.weight"] for name in names]))


CONTENDERS: dict[str, Callable[[Start], Contender]] = {
    "ours": functools.partial(ours, compiled=False),
    "ours, compiled": functools.partial(ours, compiled=True),
    "megatron-core": stock_megatron,
    "PyTorch": functools.partial(plain_pytorch, compiled=False),
    "PyTorch, compiled": functools.partial(plain_pytorch, compiled=True),
    "transformers": transformers_llama,
}
