"""The logits of our model beside those of transformers, on the same weights and random tokens.

In: an export, or any Llama that this code can build. Out: a `Comparison`. `megatron_train.compare` is the command.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from transformers import LlamaForCausalLM

from megatron_train.checkpoints.export import load_export, read_export, shape_of
from megatron_train.model.model import build_model
from megatron_train.ranks import parallel

POSITIONS = 256
"""Tokens of a sequence, or the model's context where that is shorter."""


class Comparison(NamedTuple):
    largest_difference: float
    """Largest difference of any logit."""
    agreement: float
    """Share of positions at which both models find the same token likeliest."""
    spread: float
    """Standard deviation of the logits: what a difference is to be measured by."""


def compare(folder: Path, sequences: int) -> Comparison:
    """Load the folder twice, compare logits of random tokens. Raises ArtifactError or ConfigError for a bad folder."""
    read_export(folder)
    shape = shape_of(folder)
    ranks = parallel.initialise(1, 1)
    try:
        model = build_model(shape, tensor_parallel=1, device=torch.device("cpu"), seed=0).eval()
        load_export(folder, model, shape, ranks)
        theirs = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        draw = torch.Generator().manual_seed(0)
        tokens = torch.randint(0, shape.vocab, (sequences, min(POSITIONS, shape.context_tokens)), generator=draw)
        with torch.no_grad():
            ours, reference = model.logits(tokens), theirs(tokens).logits
    finally:
        parallel.shut_down()
    same = (ours.argmax(-1) == reference.argmax(-1)).float().mean().item()
    return Comparison((ours - reference).abs().max().item(), same, reference.std().item())
