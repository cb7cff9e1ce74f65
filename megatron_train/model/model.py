"""The language model: megatron-core's GPTModel in the shape of Llama.

In: a `ModelShape` and the process groups. Out: a module that maps token ids to final hidden states and owns the output
matrix; the loss (megatron_train.model.loss) multiplies the two in pieces, so that logits need never exist all at once.
RMSNorm before each block and at the end, rotary positions, gated MLP, no biases, no dropout.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from configs.schema import ModelShape
from megatron_train.model.attention import CausalAttention, Places
from megatron_train.model.mcore import (
    MLP,
    AttnMaskType,
    ColumnParallelLinear,
    GPTModel,
    MLPSubmodules,
    ModuleSpec,
    RowParallelLinear,
    SelfAttention,
    SelfAttentionSubmodules,
    TransformerBlockSubmodules,
    TransformerConfig,
    TransformerLayer,
    TransformerLayerSubmodules,
    WrappedTorchNorm,
)
from megatron_train.model.packing import Segments
from megatron_train.model.rotary import Rotary


class LanguageModel(GPTModel):
    """GPTModel up to its final norm."""

    rotary: Rotary

    def hidden(self, tokens: Tensor, segments: Segments | None = None) -> Tensor:
        """Token ids int64 [batch, positions] -> final hidden states [positions, batch, hidden].

        `segments`: of a packed row (batch is 1); each is computed as if it stood alone.
        """
        places = slice(tokens.shape[1]) if segments is None else segments.positions
        return self.decoder(self.embedding(tokens, None), attention_mask=Places(self.rotary.at(places), segments))

    @property
    def output_weight(self) -> Tensor:
        """This rank's rows of the output matrix, [vocab / tensor-parallel size, hidden]."""
        if self.share_embeddings_and_output_weights:
            return self.shared_embedding_or_output_weight()
        return self.output_layer.weight

    def logits(self, tokens: Tensor) -> Tensor:
        """[batch, positions] -> this rank's columns of the logits, [batch, positions, vocab / tensor-parallel size]."""
        return F.linear(self.hidden(tokens), self.output_weight).transpose(0, 1)


def _add(training: bool, fusion: bool) -> Any:
    """Residual connection without the dropout (and its random numbers) of megatron's."""
    return lambda output_and_bias, residual, probability: residual + output_and_bias[0]


def _layer(norm: Any) -> ModuleSpec:
    return ModuleSpec(
        module=TransformerLayer,
        submodules=TransformerLayerSubmodules(
            input_layernorm=norm,
            self_attention=ModuleSpec(
                module=SelfAttention,
                params={"attn_mask_type": AttnMaskType.causal},
                submodules=SelfAttentionSubmodules(
                    linear_qkv=ColumnParallelLinear, core_attention=CausalAttention, linear_proj=RowParallelLinear
                ),
            ),
            self_attn_bda=_add,
            pre_mlp_layernorm=norm,
            mlp=ModuleSpec(
                module=MLP, submodules=MLPSubmodules(linear_fc1=ColumnParallelLinear, linear_fc2=RowParallelLinear)
            ),
            mlp_bda=_add,
        ),
    )


def build_model(
    shape: ModelShape,
    *,
    tensor_parallel: int,
    device: torch.device,
    seed: int,
    norm: Any = WrappedTorchNorm,
    compiled: bool = False,
) -> LanguageModel:
    """Initialised fp32 weights, the same on any number of devices: each rank draws all and keeps its part.

    `norm` is the builder of norms (megatron_train.model.norms); blocks that will be `compiled` leave fusing to the
    compiler. Matrices ~ N(0, init_std); the two that write into the residual stream ~ N(0, init_std / sqrt(2 layers))
    (GPT-2).
    """
    # megatron warns about settings of its own that it deprecates.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = _transformer_config(shape, tensor_parallel, fused=device.type == "cuda" and not compiled)
    torch.manual_seed(seed)
    model = LanguageModel(
        config,
        # The norm is named because megatron would put a LayerNorm of Apex at the end where Apex is installed.
        TransformerBlockSubmodules(layer_specs=[_layer(norm)] * shape.layers, layer_norm=norm),
        vocab_size=shape.vocab,
        max_sequence_length=shape.context_tokens,
        share_embeddings_and_output_weights=shape.tied_embeddings,
        position_embedding_type="none",  # ours, in the attention
    ).to(device)
    model.rotary = Rotary.of(shape, device)
    return model


def _normal(std: float) -> Any:
    return lambda weight: torch.nn.init.normal_(weight, mean=0.0, std=std)


def _transformer_config(shape: ModelShape, tensor_parallel: int, *, fused: bool) -> TransformerConfig:
    return TransformerConfig(
        num_layers=shape.layers,
        hidden_size=shape.hidden,
        num_attention_heads=shape.heads,
        kv_channels=shape.head_dim,
        ffn_hidden_size=shape.ffn_hidden,
        tensor_model_parallel_size=tensor_parallel,
        gated_linear_unit=True,
        activation_func=F.silu if shape.activation == "swiglu" else F.gelu,
        # megatron's fused SwiGLU is compiled by Triton; its fused GeGLU is the tanh approximation, so never used.
        bias_activation_fusion=fused and shape.activation == "swiglu",
        add_bias_linear=False,
        normalization="RMSNorm",
        layernorm_epsilon=shape.norm_eps,
        persist_layer_norm=False,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        init_method_std=shape.init_std,
        output_layer_init_method=_normal(shape.init_std / math.sqrt(2 * shape.layers)),
        params_dtype=torch.float32,
        use_cpu_initialization=True,
        gradient_accumulation_fusion=False,
        apply_rope_fusion=False,
    )
