"""Which folders our own Llama can run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from configs import llama
from configs.artifacts import read_object
from configs.errors import ArtifactError
from configs.llama import LlamaShape

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
}


def read_shape(folder: Path) -> LlamaShape:
    """Raises ArtifactError where config.json is missing or describes another architecture."""
    return llama.read_shape(folder, ACTIVATIONS)


def is_plain_llama(folder: Path) -> bool:
    """Can our own code run it (`llama`), which is faster than transformers?"""
    from ray_eval.models.weights import OUTPUT_LAYER, weight_names

    # Code of its own may do anything with the weights, so nothing here says that the model is a Llama.
    if read_object(folder / "config.json").get("auto_map"):
        return False
    try:
        # Where a tied output layer has weights too, transformers ties it only if they are the embedding's.
        return not (read_shape(folder).tied_embeddings and OUTPUT_LAYER in weight_names(folder))
    except ArtifactError:  # or transformers knows a default for what the config leaves out
        return False
