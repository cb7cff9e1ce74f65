"""What the rest of the room needs to know of a checkpoint, whoever trained it; and what is checked of all of them.

    exports.py         ours, named by the run folder they lie in
    hf_checkpoint.py   any model of transformers: a folder, or an id of the Hub

Nothing of a checkpoint is believed before it is checked, and nothing in it is run: weights are safetensors, and a
config that asks for Python code of its own is refused, unless the user trusts it by an explicit flag.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from configs.artifacts import sha256_files
from configs.errors import ArtifactError
from configs.untrusted.checks import shown
from ray_eval.models.weights import Weights

if TYPE_CHECKING:
    import torch

    from ray_eval.models.scorer import CausalLM
    from ray_eval.plans.encoding import Encoder

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
FOREIGN_CODE = ("auto_map", "trust_remote_code")
"""Keys of a config by which a model brings Python code of its own."""
KERNELS = ("attn_implementation", "_attn_implementation", "experts_implementation")
"""Keys that may name a repository of compiled code."""
ADAPTER = "adapter_config.json"
"""Where this file is, transformers fetches and reads another model, whatever lies beside it."""


class Checkpoint(Protocol):
    """Weights to score, with the tokenizer they were trained with."""

    @property
    def folder(self) -> Path:
        """Holds config.json, *.safetensors and the tokenizer."""

    @property
    def checkpoint(self) -> str:
        """sha256 over the safetensors in name order."""

    @property
    def columns(self) -> Mapping[str, str | int]:
        """What it is, in the columns of a score file: study scale mixture stage recipe; seed step tokens."""

    @property
    def facts(self) -> Mapping[str, str]:
        """More of it for the score file's metadata: where it came from, what the user allowed it, and what beside the
        weights makes it another model (keys in `results.IDENTITY`)."""

    @property
    def score_file(self) -> Path: ...

    @property
    def precision(self) -> str | None:
        """fp32, bf16 or fp16; None: as the study says."""

    @property
    def encoding_sha256(self) -> str:
        """Hash of everything that decides the ids of a text; checkpoints with equal ones share their plans."""

    @property
    def context_tokens(self) -> int:
        """The model's longest input."""

    def verify(self) -> None:
        """Raises ArtifactError where the weights are not (any more) those that `checkpoint` names."""

    def read(self) -> Weights | None:
        """The weights in memory, verified; None, verified too, where transformers will read them itself."""

    def encoder(self) -> Encoder: ...

    def load(self, dtype: torch.dtype, devices: Sequence[str], weights: Weights | None) -> CausalLM:
        """devices: one, or several that share a plain Llama.   weights: what `read` gave.

        Raises ArtifactError for weights that are missing, damaged or not finite, and for a model that cannot be scored.
        """


def verify_weights(folder: Path, checkpoint: str, origin: str, hint: str) -> None:
    """Raises ArtifactError where the safetensors of `folder` have another hash than `checkpoint`.

    origin: words for the message that say where that hash stands.
    """
    found = sha256_files(list(folder.glob("*.safetensors")))
    if found != checkpoint:
        problem = f"the weights have sha256 {found[:12]}, {origin} {checkpoint[:12]} (altered)"
        raise ArtifactError(problem, where=folder, hint=hint)


def check_weight_files(folder: Path, hint: str) -> None:
    """Refuse weights that are not safetensors; they are named, never opened. hint: where there are none at all."""
    if (folder / ADAPTER).is_file():
        hint = "merge it into its model and save that (peft: model.merge_and_unload)"
        raise ArtifactError("an adapter of another model", where=folder / ADAPTER, valid="a whole model", hint=hint)
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if pickles:
        raise ArtifactError(
            f"weights in {', '.join(pickles)} only: reading a pickle runs whatever code it holds, so it is not read",
            where=folder,
            valid="*.safetensors",
            hint="save them as safetensors where you trust them (transformers: model.save_pretrained)",
        )
    raise ArtifactError("no weights", where=folder, valid="*.safetensors", hint=hint)


def check_own_code(path: Path, config: dict[str, Any], hint: str | None = None) -> None:
    """Refuse a config (the contents of `path`, at any depth) that asks for code of its own."""
    for key, value in config.items():
        if isinstance(value, dict) and key not in FOREIGN_CODE:
            check_own_code(path, value, hint)
        # A kernel of transformers itself is one word; with a slash it is a repository of the Hub, which holds code.
        elif (key in FOREIGN_CODE and value) or (key in KERNELS and "/" in str(value)):
            raise ArtifactError(
                f"{key} is {shown(value)}: the model would run code of its own, which is never done "
                + ("here" if hint is None else "unasked"),
                where=path,
                valid=f"a model of a known architecture, without {' or '.join(FOREIGN_CODE)}",
                hint=hint,
            )


def read_weights(checkpoint: Checkpoint) -> Weights:
    """The weights in memory. Raises ArtifactError where they are not those that the checkpoint's hash names."""
    weights = Weights(checkpoint.folder)
    if weights.sha256 != checkpoint.checkpoint:
        checkpoint.verify()  # says it in its own words
        raise ArtifactError("the weights were changed while they were read", where=checkpoint.folder, hint="rerun")
    return weights
