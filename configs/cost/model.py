"""The arithmetic of one model: parameters, FLOPs of a token, bytes on a device.

In: a validated config. Out: exact counts, and one quantity called an estimate because it is one (activations).
Two conventions of attention FLOPs are in use, and both are given: full and causal.
"""

from __future__ import annotations

from dataclasses import dataclass

from configs.schema import ModelShape, TrainConfig

OPTIMIZER_BYTES = 8  # AdamW: two fp32 moments a parameter
MASTER_BYTES = 4  # fp32 weights, gradients
CHUNK_LOGITS = 1 << 28
"""Logits alive at once in the loss (1 GiB in fp32); megatron_train.model.loss keeps to it."""


@dataclass(frozen=True)
class Parameters:
    """Trainable numbers of a model: gated MLP (3 matrices), attention with 4 projections, RMSNorm, no biases."""

    embedding: int
    """vocab x hidden, once; the output layer is the same matrix or (untied) a second one."""
    attention: int
    """The four projections of all blocks."""
    mlp: int
    """Gate, up and down of all blocks."""
    norms: int
    """Gains of RMSNorm: two a block and the last."""
    tied: bool

    @property
    def matrices(self) -> int:
        return self.attention + self.mlp

    @property
    def outside_embedding(self) -> int:
        return self.matrices + self.norms

    @property
    def total_tied(self) -> int:
        return self.outside_embedding + self.embedding

    @property
    def total_untied(self) -> int:
        return self.outside_embedding + 2 * self.embedding

    @property
    def total(self) -> int:
        return self.total_tied if self.tied else self.total_untied

    def per_device(self, tensor: int) -> int:
        """Parameters on one of `tensor` tensor-parallel devices: matrices are split, gains are repeated."""
        return (self.total - self.norms) // tensor + self.norms


@dataclass(frozen=True)
class Flops:
    """FLOPs of one token, forward and backward (backward is twice forward), without recomputation."""

    matmul: float
    """6 x (block matrices + output layer)."""
    attention_full: float
    """12 x layers x heads x head_dim x context: every query against every key (the convention of PaLM and nanoGPT)."""

    @property
    def attention_causal(self) -> float:
        """Half: a query sees on average half of the keys (the convention of current Megatron-LM)."""
        return self.attention_full / 2

    @property
    def full(self) -> float:
        return self.matmul + self.attention_full

    @property
    def causal(self) -> float:
        return self.matmul + self.attention_causal


@dataclass(frozen=True)
class Memory:
    """Bytes on one device while training."""

    weights: int
    """fp32 master weights, and their bf16 copy where the precision is bf16."""
    gradients: int
    moments: int
    blocks_estimate: int
    """ESTIMATE of what the forward pass of one micro-batch keeps, without recomputation or fused kernels."""
    loss_estimate: int
    """ESTIMATE of what the loss takes on top of it: logits of a piece, gradients of states and output matrix."""

    @property
    def activations_estimate(self) -> int:
        return self.blocks_estimate + self.loss_estimate

    @property
    def total_estimate(self) -> int:
        return self.weights + self.gradients + self.moments + self.activations_estimate


def parameters(model: ModelShape) -> Parameters:
    attention = 4 * model.hidden * model.heads * model.head_dim
    mlp = 3 * model.hidden * model.ffn_hidden
    return Parameters(
        embedding=model.vocab * model.hidden,
        attention=model.layers * attention,
        mlp=model.layers * mlp,
        norms=(2 * model.layers + 1) * model.hidden,
        tied=model.tied_embeddings,
    )


def flops_per_token(model: ModelShape) -> Flops:
    count = parameters(model)
    return Flops(
        matmul=6.0 * (count.matrices + count.embedding),
        attention_full=12.0 * model.layers * model.heads * model.head_dim * model.context_tokens,
    )


def memory(config: TrainConfig, data_parallel: int = 1) -> Memory:
    """Bytes on one device. With bf16, hence on GPUs, `data_parallel` copies of the model share masters and moments."""
    model, tensor = config.model, config.parallel.tensor
    held = parameters(model).per_device(tensor)
    copy = 2 if config.precision == "bf16" else 0
    shares = data_parallel if copy else 1
    # Numbers kept a token and block: input and output of both norms (4 hidden); q, k, v before and after the rotary
    # turn and the attention's output (6 heads x head_dim); gate, up, and their product (3 ffn).
    width = model.heads * model.head_dim
    block = 4 * model.hidden + (6 * width + 3 * model.ffn_hidden) / tensor
    tokens = config.batch.micro_sequences * model.context_tokens
    # A piece of the logits in the training precision, in fp32, and its gradient in the training precision; then the
    # gradients of all hidden states and of the output matrix (fp32 while pieces add up).
    asked = config.loss_chunk_tokens
    limit = asked * model.vocab / tensor if asked else CHUNK_LOGITS
    pieces = min(tokens * model.vocab / tensor, limit) * ((copy or 4) + 4 + (copy or 4))
    loss = pieces + tokens * model.hidden * (copy or 4) + model.vocab / tensor * model.hidden * 4
    return Memory(
        weights=held * copy + held * MASTER_BYTES // shares,
        gradients=held * MASTER_BYTES,
        moments=held * OPTIMIZER_BYTES // shares,
        blocks_estimate=round(tokens * model.layers * block * (copy or 4)),
        loss_estimate=round(loss),
    )
