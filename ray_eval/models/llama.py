"""The body of a Hugging Face Llama in plain PyTorch, read straight from its export.

In: a folder with config.json and *.safetensors. Out: hidden states for packed rows, whose branches share a prefix,
and next-token log-probabilities at chosen places only. No transformers: its start-up costs more than scoring a small
checkpoint, and its output layer runs at every position.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from configs.errors import ArtifactError, ResourceError
from ray_eval.models import output_layer
from ray_eval.models.batches import RowBatch
from ray_eval.models.llama_shape import ACTIVATIONS, read_shape
from ray_eval.models.precision import WIDER, precision_of
from ray_eval.models.tree_attention import Form, Heads, Mask, as_numbers, attend, usable_forms
from ray_eval.models.weights import Weights


@dataclass(frozen=True)
class Block:
    """What one device holds of a block."""

    qkv: Tensor
    """[(heads + 2 kv_heads) x head_dim, hidden]: the three projections of its heads as one product."""
    output: Tensor
    """[hidden, heads x head_dim]"""
    gate_up: Tensor
    """[2 ffn, hidden]"""
    down: Tensor
    """[hidden, ffn]"""


@dataclass(frozen=True)
class Shard:
    """What one device holds: an equal share of the heads and the MLP of every block, and of the output layer's rows."""

    device: torch.device
    heads: int
    kv_heads: int
    blocks: list[Block]
    head: Tensor
    """fp32 [entries, hidden], whatever the body's precision: a rounded logit moves answers by up to 0.1 nat."""
    entries: range
    """Entries of the vocabulary whose rows of the output layer it holds."""


class Llama:
    """A checkpoint ready to score (`scorer.CausalLM`), on one device or spread over several."""

    shares_prefixes = True

    def __init__(
        self,
        export: Path,
        weights: Weights | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        devices: Sequence[str] = ("cpu",),
    ) -> None:
        """weights: of this export; None: they are read.   devices: each takes a share of every layer.

        Raises as `load`, and ResourceError where heads cannot be shared out equally.
        """
        self.shape, self.dtype = read_shape(export), dtype
        self.device = torch.device(devices[0])
        s, count = self.shape, len(devices)
        if s.heads % count or s.kv_heads % count or s.ffn_hidden % count:
            shared = f"{s.heads} heads, {s.kv_heads} of keys, an MLP of {s.ffn_hidden}"
            problem = f"{shared}: {count} devices cannot share them equally"
            raise ResourceError(problem, where=export, hint="fewer --gpus-per-worker")
        weights = Weights(export) if weights is None else weights
        if s.numbers > weights.bytes:  # memory is taken before they are read
            problem = f"config.json asks for {s.numbers:,} numbers, the weights have {weights.bytes:,} bytes"
            raise ArtifactError(problem, where=export)
        self.embedding = torch.empty(s.vocab, s.hidden, dtype=dtype, device=self.device)
        self.norms = torch.empty(s.layers, 2, s.hidden, dtype=dtype, device=self.device)
        """Before the attention and before the MLP of each block."""
        self.norm = torch.empty(s.hidden, dtype=dtype, device=self.device)
        bounds = [s.vocab * i // count for i in range(count + 1)]
        self.shards = [
            self._empty_shard(torch.device(device), count, range(*bounds[i : i + 2]))
            for i, device in enumerate(devices)
        ]
        frequencies = s.rope_base ** -(torch.arange(0, s.head_dim, 2, dtype=torch.float32) / s.head_dim)
        angles = torch.arange(s.context_tokens, dtype=torch.float32)[:, None] * frequencies.repeat(2)
        self.cos, self.sin = angles.cos().to(self.device), angles.sin().to(self.device)
        self.sin[:, : s.head_dim // 2].neg_()  # so that turning a pair is one roll (see _turn)
        self.load(weights)

    def _empty_shard(self, device: torch.device, count: int, entries: range) -> Shard:
        s = self.shape
        heads, kv_heads, ffn = s.heads // count, s.kv_heads // count, s.ffn_hidden // count

        def empty(*sizes: int) -> Tensor:
            return torch.empty(sizes, dtype=self.dtype, device=device)

        blocks = [
            Block(
                qkv=empty((heads + 2 * kv_heads) * s.head_dim, s.hidden),
                output=empty(s.hidden, heads * s.head_dim),
                gate_up=empty(2 * ffn, s.hidden),
                down=empty(s.hidden, ffn),
            )
            for _ in range(s.layers)
        ]
        same = s.tied_embeddings and count == 1 and self.dtype == torch.float32
        head = self.embedding if same else torch.empty(len(entries), s.hidden, device=device)
        return Shard(device, heads, kv_heads, blocks, head, entries)

    def fits(self, export: Path, dtype: torch.dtype) -> bool:
        """Can the weights of `export` be loaded into this model?"""
        return dtype == self.dtype and read_shape(export) == self.shape

    def load(self, weights: Weights) -> None:
        """Copy the weights of a checkpoint of the same shape over those that are here.

        Raises ArtifactError for a weight that is missing, truncated, misshapen or not finite; what is here then belongs
        to no checkpoint.
        """
        for name, (axis, places) in self.places().items():
            sizes = list(places[0].shape)
            sizes[axis] = sum(place.shape[axis] for place in places)
            # Through the body's precision, in which a checkpoint is scored, also for the output layer.
            stored = weights.get(name, sizes)
            weight = stored.to(self.dtype)
            if not torch.stack(weight.aminmax()).isfinite().all():  # an eighth of the time of looking at each
                raise _not_finite(name, stored, weight, weights.path(name))
            for place, part in zip(places, weight.split([p.shape[axis] for p in places], dim=axis), strict=True):
                place.copy_(part)
        if self.shape.tied_embeddings:
            for shard in self.shards:
                if shard.head is not self.embedding:
                    shard.head.copy_(self.embedding[shard.entries.start : shard.entries.stop])

    def places(self) -> dict[str, tuple[int, list[Tensor]]]:
        """The place of a weight, by its name in an export: the axis along which it is cut, and its parts."""
        s = self.shape
        places = {"model.embed_tokens.weight": (0, [self.embedding]), "model.norm.weight": (0, [self.norm])}
        if not s.tied_embeddings:
            places["lm_head.weight"] = 0, [shard.head for shard in self.shards]
        for i in range(s.layers):
            at = f"model.layers.{i}."
            for name, norm in zip(("input", "post_attention"), self.norms[i], strict=True):
                places[f"{at}{name}_layernorm.weight"] = 0, [norm]
            for shard in self.shards:
                block = shard.blocks[i]
                q, k, v = block.qkv.split([n * s.head_dim for n in (shard.heads, shard.kv_heads, shard.kv_heads)])
                gate, up = block.gate_up.chunk(2)
                rows = {"self_attn.q": q, "self_attn.k": k, "self_attn.v": v, "mlp.gate": gate, "mlp.up": up}
                columns = {"self_attn.o": block.output, "mlp.down": block.down}
                for axis, parts in enumerate((rows, columns)):
                    for name, part in parts.items():
                        places.setdefault(f"{at}{name}_proj.weight", (axis, []))[1].append(part)
        return places

    @functools.cached_property
    def forms(self) -> tuple[tuple[Form, ...], str]:
        """What `tree_attention.usable_forms` finds, tried once."""
        if len(self.shards) > 1:
            return ("padded",), "a block mask lies on one device"
        s = self.shape
        return usable_forms(Heads(s.heads, s.kv_heads, s.head_dim, self.dtype, self.device))

    @property
    def places_at_once(self) -> int:
        return output_layer.places_at_once([shard.head for shard in self.shards])

    @property
    def operations_per_token(self) -> float:
        blocks = (block for shard in self.shards for block in shard.blocks)
        return 2.0 * sum(w.numel() for b in blocks for w in (b.qkv, b.output, b.gate_up, b.down))

    @property
    def operations_per_head(self) -> float:
        return 2.0 * self.embedding.numel()

    @torch.inference_mode()
    def log_probabilities(self, batches: Sequence[RowBatch]) -> Tensor:
        """log P(target_token[i]) after the place heads[target_head[i]], float32 [N], in nats, batch after batch."""
        states = [self._hidden(batch) for batch in batches]
        firsts = itertools.accumulate((len(some) for some in states), initial=0)
        head = [batch.target_head + first for batch, first in zip(batches, firsts, strict=False)]
        token = [batch.target_token for batch in batches]
        layer = [shard.head for shard in self.shards]
        return output_layer.log_probabilities(torch.cat(states), layer, torch.cat(head), torch.cat(token))

    def _hidden(self, batch: RowBatch) -> Tensor:
        """[H, hidden] after the last norm, at the heads. Behind its attention the last block runs at these only."""
        s, size = self.shape, batch.tokens.shape
        cos = self.cos[batch.positions].to(self.dtype)[:, :, None]  # [B, T, 1, head_dim]
        sin = self.sin[batch.positions].to(self.dtype)[:, :, None]
        mask = as_numbers(batch.mask, self.dtype)
        given = [(cos, sin, mask)] * len(self.shards)
        if len(self.shards) > 1:
            given = [(cos.to(d), sin.to(d), mask if mask is None else mask.to(d)) for d in self._devices]
        x = F.embedding(batch.tokens.flatten(), self.embedding)  # [B x T, hidden]
        for i, norms in enumerate(self.norms):
            normed = F.rms_norm(x, (s.hidden,), norms[0], s.norm_eps)
            places = None
            if i + 1 == s.layers:
                places, x = batch.heads, x[batch.heads]
            x = x + self._sum(
                [
                    self._attention(shard, shard.blocks[i], normed.to(shard.device).view(*size, -1), *each, places)
                    for shard, each in zip(self.shards, given, strict=True)
                ]
            )
            normed = F.rms_norm(x, (s.hidden,), norms[1], s.norm_eps)
            x = x + self._sum([self._mlp(shard.blocks[i], normed.to(shard.device)) for shard in self.shards])
        return F.rms_norm(x, (s.hidden,), self.norm, s.norm_eps)

    def _attention(
        self,
        shard: Shard,
        block: Block,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Mask | None,
        places: Tensor | None,
    ) -> Tensor:
        """The shard's heads on [B, T, hidden]; [B x T, hidden], or at some places of the flattened batch only."""
        qkv = F.linear(x, block.qkv).unflatten(-1, (-1, self.shape.head_dim))
        turned = _turn(qkv[:, :, : shard.heads + shard.kv_heads], cos, sin)
        q, k = turned.transpose(1, 2).split([shard.heads, shard.kv_heads], dim=1)
        v = qkv[:, :, shard.heads + shard.kv_heads :].transpose(1, 2)
        attended = attend(q, k, v, mask).transpose(1, 2).flatten(2).flatten(0, 1)
        return F.linear(attended if places is None else attended[places.to(shard.device)], block.output)

    def _mlp(self, block: Block, x: Tensor) -> Tensor:
        gate, up = F.linear(x, block.gate_up).chunk(2, dim=-1)
        return F.linear(ACTIVATIONS[self.shape.activation](gate).mul_(up), block.down)

    @property
    def _devices(self) -> list[torch.device]:
        return [shard.device for shard in self.shards]

    def _sum(self, parts: list[Tensor]) -> Tensor:
        """What the shards contribute, on the first device."""
        return functools.reduce(torch.add, (part.to(self.device) for part in parts))


def _not_finite(name: str, stored: Tensor, weight: Tensor, path: Path) -> ArtifactError:
    """stored: as the file holds it.   weight: the same in the precision that is asked for."""
    wrong, precision = int((~weight.isfinite()).sum()), precision_of(weight.dtype)
    if stored.isfinite().all():
        problem = f"weight {name} holds {wrong} numbers that are too large for {precision}"
        return ArtifactError(problem, where=path, hint=WIDER[precision])
    hint = "its training diverged, or the file was damaged before it was hashed: train it again"
    return ArtifactError(f"weight {name} holds {wrong} NaN or infinite numbers", where=path, hint=hint)


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions, halves convention: (a, b) -> (a cos - b sin, b cos + a sin); `sin` holds (-sin, sin)."""
    return (x * cos).addcmul_(x.roll(x.shape[-1] // 2, dims=-1), sin)
