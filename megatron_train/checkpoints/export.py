"""Our weights as a Hugging Face Llama, and back.

In: a model split over tensor-parallel ranks. Out: <run>/export/step-0001000/ with model.safetensors, config.json, the
tokenizer's files and, last, export.json. Everything downstream (scoring, other people's tools) reads this folder only;
fine-tuning starts from it. megatron's layout: queries, keys and values of a head lie together in `linear_qkv`, gate
and up projection together in `linear_fc1`.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from configs.artifacts import atomic_folder, describe_file, read_object, sha256_files, write_json
from configs.errors import ArtifactError, ConfigError
from configs.exports import EXPORT_JSON, read_export_json
from configs.llama import read_shape
from configs.load import validate
from configs.schema import ModelShape
from configs.untrusted.checks import inside, understood
from megatron_train.checkpoints.checkpoint import pieces
from megatron_train.model.model import LanguageModel
from megatron_train.ranks.parallel import Ranks
from mixtures.tokens.tokenizer import SpecialIds

VERSION = 1
WEIGHTS = "model.safetensors"
SHARDS = "model.safetensors.index.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")

# megatron's name -> Hugging Face's, within layer {i}; linear_qkv and linear_fc1 hold several.
LAYER_NAMES = {
    "input_layernorm.weight": "input_layernorm.weight",
    "self_attention.linear_proj.weight": "self_attn.o_proj.weight",
    "pre_mlp_layernorm.weight": "post_attention_layernorm.weight",
    "mlp.linear_fc1.weight.gate": "mlp.gate_proj.weight",
    "mlp.linear_fc1.weight.up": "mlp.up_proj.weight",
    "mlp.linear_fc2.weight": "mlp.down_proj.weight",
}
OUTER_NAMES = {
    "embedding.word_embeddings.weight": "model.embed_tokens.weight",
    "decoder.final_layernorm.weight": "model.norm.weight",
    "output_layer.weight": "lm_head.weight",
}
GATES = {"silu": "swiglu", "gelu": "geglu"}
"""Activation as transformers names it -> the gate of our MLP."""
TIED = ("model.embed_tokens.weight", "lm_head.weight")
QKV = "self_attention.linear_qkv.weight"


def _hf_names(name: str) -> list[str]:
    """Hugging Face names of one of our whole tensors (three for linear_qkv)."""
    if name in OUTER_NAMES:
        return [OUTER_NAMES[name]]
    _, _, layer, inner = name.split(".", 3)
    if inner == QKV:
        return [f"model.layers.{layer}.self_attn.{x}_proj.weight" for x in "qkv"]
    return [f"model.layers.{layer}.{LAYER_NAMES[inner]}"]


def hf_config(shape: ModelShape, dtype: torch.dtype) -> dict[str, Any]:
    """config.json of a LlamaForCausalLM; both spellings of the rotary base, for transformers 4 and 5."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn_hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.heads,
        "head_dim": shape.head_dim,
        "hidden_act": next(name for name, gate in GATES.items() if gate == shape.activation),
        "max_position_embeddings": shape.context_tokens,
        "initializer_range": shape.init_std,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_base},
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": shape.tied_embeddings,
        "dtype": str(dtype).removeprefix("torch."),
        "torch_dtype": str(dtype).removeprefix("torch."),
    }


def gather(model: LanguageModel, shape: ModelShape, ranks: Ranks) -> dict[str, Tensor]:
    """Whole tensors under Hugging Face's names, on the CPU; every tensor-parallel rank takes part."""
    whole: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        for piece, (values, dim) in pieces(name, parameter, parameter.data).items():
            if dim is not None and ranks.tensor_size > 1:
                parts = [
                    torch.empty_like(values, memory_format=torch.contiguous_format) for _ in range(ranks.tensor_size)
                ]
                dist.all_gather(parts, values.contiguous(), group=ranks.tensor_group)
                values = torch.cat(parts, dim=dim)
            tensors = [values]
            if name.endswith(QKV):
                heads = values.view(shape.heads, 3, shape.head_dim, shape.hidden)
                tensors = [heads[:, i].reshape(-1, shape.hidden) for i in range(3)]
            for hf_name, tensor in zip(_hf_names(piece), tensors, strict=True):
                whole[hf_name] = tensor.detach().cpu().contiguous()
    return whole


def export(
    folder: Path,
    model: LanguageModel,
    shape: ModelShape,
    ranks: Ranks,
    tokenizer: Path,
    facts: dict[str, Any],
) -> str:
    """Write the export of a step; `facts` (step, tokens, ...) go into export.json. Returns the weights' sha256."""
    tensors = gather(model, shape, ranks)  # on every rank: it is collective
    if ranks.is_main:
        with atomic_folder(folder) as temporary:
            # Hugging Face's loaders ask for the metadata.
            save_file(dict(sorted(tensors.items())), temporary / WEIGHTS, metadata={"format": "pt"})
            dtype = next(iter(tensors.values())).dtype
            special = SpecialIds.read(tokenizer)
            ids = {"bos_token_id": special.eod, "eos_token_id": special.eod, "pad_token_id": special.pad}
            write_json(temporary / "config.json", hf_config(shape, dtype) | ids)
            for name in TOKENIZER_FILES:
                if (tokenizer / name).is_file():
                    shutil.copyfile(tokenizer / name, temporary / name)
            files = {p.name: describe_file(p) for p in sorted(temporary.iterdir())}
            hashes = {
                "checkpoint": files[WEIGHTS]["sha256"],  # as `sha256_files` of the one
                "tokenizer_sha256": files["tokenizer.json"]["sha256"],
            }
            about = {"version": VERSION, "files": files, **hashes, **facts}
            write_json(temporary / EXPORT_JSON, about, sealed=True)
    ranks.barrier()
    return str(read_object(folder / EXPORT_JSON)["checkpoint"])


def read_export(folder: Path) -> dict[str, Any]:
    """export.json of a complete export whose files have their sizes and whose weights have their sha256.

    Of somebody else's Llama, which has no export.json, only `checkpoint`. Raises ArtifactError otherwise, naming the
    file.
    """
    if not (folder / EXPORT_JSON).is_file():
        return {"checkpoint": sha256_files(sorted(set(weight_files(folder).values())))}
    facts = read_export_json(folder)
    if not (folder / WEIGHTS).is_file() or sha256_files([folder / WEIGHTS]) != facts["checkpoint"]:
        hint = f"delete {folder} and rerun its training"
        raise ArtifactError("sha256 differs from export.json", where=folder / WEIGHTS, hint=hint)
    return facts


def weight_files(folder: Path) -> dict[str, Path]:
    """Name of each tensor -> its file. Raises ArtifactError where the folder holds no safetensors or lacks a file."""
    names = [WEIGHTS]
    if (folder / SHARDS).is_file():
        with understood(folder / SHARDS, hint="copy the model again"):
            names = sorted(set(read_object(folder / SHARDS)["weight_map"].values()))
    found: dict[str, Path] = {}
    for name in names:
        path = inside(folder, name, folder / SHARDS)
        try:
            with safe_open(path, framework="pt") as file:
                found |= dict.fromkeys(file.keys(), path)
        except FileNotFoundError:
            raise ArtifactError("no such weights", where=path, valid=f"{WEIGHTS}, or the files of {SHARDS}") from None
        except (SafetensorError, OSError) as error:
            raise ArtifactError(f"not readable as safetensors ({error})", where=path, hint="copy it again") from None
    return found


def shape_of(folder: Path) -> ModelShape:
    """The shape of a Llama from its config.json. Raises ConfigError for a model that this code does not build."""
    found = asdict(read_shape(folder, GATES, ConfigError, grouped_queries=False))
    del found["kv_heads"]
    return validate(ModelShape, found | {"activation": GATES[found["activation"]]}, folder / "config.json")


def check_shape(folder: Path, shape: ModelShape) -> None:
    """Raise ConfigError unless the export in `folder` has this shape (the context may differ)."""
    found, wanted = (hf_config(each, torch.float32) for each in (shape_of(folder), shape))
    keys = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "head_dim")
    for key in (*keys, "hidden_act", "tie_word_embeddings", "rms_norm_eps", "rope_theta"):
        if found[key] != wanted[key]:
            raise ConfigError(
                f"the parent's {key} is {found[key]}, the config asks for {wanted[key]}",
                where=folder / "config.json",
                hint="give the fine-tuning config the `model` of its parent",
            )


@torch.no_grad()
def load_export(folder: Path, model: LanguageModel, shape: ModelShape, ranks: Ranks) -> None:
    """Fill the model with this rank's part of an export, or of any Llama of its shape."""
    where = weight_files(folder)
    with contextlib.ExitStack() as opened:
        files = {path: opened.enter_context(safe_open(path, framework="pt")) for path in set(where.values())}
        if shape.tied_embeddings:
            _check_tied(folder, {name: files[path] for name, path in where.items() if name in TIED})
        for name, parameter in model.named_parameters():
            for piece, (values, dim) in pieces(name, parameter, parameter.data).items():
                names = _hf_names(piece)
                if missing := [hf_name for hf_name in names if hf_name not in where]:
                    raise ArtifactError(f"no tensor {missing[0]}", where=folder, hint="copy the model again")
                try:
                    whole = _join_qkv([files[where[hf_name]].get_tensor(hf_name) for hf_name in names], shape)
                    mine = whole if dim is None else whole.chunk(ranks.tensor_size, dim=dim)[ranks.tensor]
                    if mine.shape != values.shape or not mine.is_floating_point():
                        raise RuntimeError(f"{mine.dtype} {list(mine.shape)} for {list(values.shape)}")
                except (SafetensorError, RuntimeError) as error:
                    problem = f"tensor {names[0]} is not of config.json's shape, or unreadable ({error})"
                    raise ArtifactError(problem, where=folder, hint="copy the model again") from None
                values.copy_(mine)


def _join_qkv(tensors: list[Tensor], shape: ModelShape) -> Tensor:
    """Hugging Face's queries, keys and values as megatron keeps them, head by head; any other tensor as it is."""
    if len(tensors) == 1:
        return tensors[0]
    heads = [tensor.view(shape.heads, 1, shape.head_dim, shape.hidden) for tensor in tensors]
    return torch.cat(heads, dim=1).reshape(-1, shape.hidden)


def _check_tied(folder: Path, files: dict[str, Any]) -> None:
    """Refuse a model whose config ties its output layer to the embedding while its weights hold another one.

    files: open file of each of `TIED` that is there.
    """
    tensors = [files[name].get_tensor(name) for name in TIED if name in files]
    if len(tensors) == 2 and (tensors[0].dtype != tensors[1].dtype or not torch.equal(*tensors)):
        raise ConfigError(
            f"tie_word_embeddings is true, but {' and '.join(TIED)} differ",
            where=folder / "config.json",
            hint="say tie_word_embeddings: false there (transformers does not tie them either)",
        )
