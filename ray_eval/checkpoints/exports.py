"""Which checkpoints of ours there are to score: exports on disk, named by the run folder they lie in.

What the small files tell is checked when an export is found, the weights when it is scored.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from configs.artifacts import fingerprint, read_object, sha256_file, verify_files
from configs.errors import ArtifactError
from configs.exports import EXPORT_JSON, read_export_json
from configs.layout import RunFolder, StudyFolder
from configs.llama import positive
from configs.untrusted.checks import parse_json, understood
from mixtures.tokens.tokenizer import SpecialIds, Tokenizer
from ray_eval.checkpoints.checkpoint import check_own_code, check_weight_files, read_weights, verify_weights
from ray_eval.models.llama import Llama
from ray_eval.models.weights import Weights

PATTERN = "*/*/seed*/*/export/step-*"
"""Below <runs>/<study>: scale / mixture / seed / stage."""


@dataclass(frozen=True)
class Export:
    """One complete export (its export.json, written last, is there); a `checkpoints.Checkpoint`."""

    run: RunFolder
    folder: Path
    step: int
    tokens: int
    """Trained so far."""
    checkpoint: str
    """sha256 over the safetensors in name order, as export.json states it."""
    encoding_sha256: str
    """Hash of tokenizer.json and of the special tokens' ids, which tokenizer_config.json chooses."""
    out: Path
    """Folder of the studies that gets the scores."""

    facts: ClassVar[dict[str, str]] = {}
    precision: ClassVar[None] = None

    @property
    def columns(self) -> dict[str, str | int]:
        return {**self.run.columns, "step": self.step, "tokens": self.tokens}

    @property
    def score_file(self) -> Path:
        study = StudyFolder(self.out, self.run.study.name)
        return replace(self.run, study=study).score_file(self.folder)

    @property
    def context_tokens(self) -> int:
        """The model's longest input."""
        return int(read_object(self.folder / "config.json")["max_position_embeddings"])

    def verify(self) -> None:
        """Raises ArtifactError where the weights are not those that export.json names."""
        hint = "delete the export and rerun its training"
        verify_weights(self.folder, self.checkpoint, f"{EXPORT_JSON} says", hint)

    def encoder(self) -> Tokenizer:
        return Tokenizer.load(self.folder)

    def read(self) -> Weights:
        return read_weights(self)

    def load(self, dtype: torch.dtype, devices: Sequence[str], weights: Weights | None) -> Llama:
        return Llama(self.folder, weights, dtype=dtype, devices=devices)


def inspect_exports(study: StudyFolder, out: Path | None = None) -> tuple[list[Export], list[ArtifactError]]:
    """Every export of a study that can be scored, by path, and for each of the others why not (out: `read_export`)."""
    exports, errors = [], []
    for folder in sorted(study.path.glob(PATTERN)):
        try:
            exports.append(read_export(folder, out))
        except ArtifactError as error:
            errors.append(error)
    return exports, errors


def read_export(folder: Path, out: Path | None = None) -> Export:
    """out: folder of the studies that gets the scores; None: the one the export lies in.

    Raises ArtifactError for a folder that is no complete export inside a run folder, or that cannot be scored.
    """
    folder = folder.resolve()
    valid = "<runs>/<study>/<scale>/<mixture>/seed<k>/<stage>/export/step-<n>"
    run = RunFolder.at(folder.parents[1]) if re.fullmatch(r"export/step-\d+", "/".join(folder.parts[-2:])) else None
    if run is None:
        raise ArtifactError("not the export of a run", where=folder, valid=valid)
    facts = read_export_json(folder)
    # Equal weights with another config.json are another model. The weights are hashed when they are read.
    small = {name: x for name, x in facts["files"].items() if not name.endswith(".safetensors") and x.get("sha256")}
    verify_files(folder, small, deep=True)
    check_weight_files(folder, hint="export the checkpoint again")
    config = _check_config(folder)
    # export.json may be copied with the folder: the run is the one it lies in, not the one it names.
    return Export(
        run=run,
        folder=folder,
        step=facts["step"],
        tokens=facts["tokens"],
        checkpoint=facts["checkpoint"],
        encoding_sha256=_check_tokenizer(folder, facts, config["vocab_size"]),
        out=out or run.study.runs,
    )


def _check_config(folder: Path) -> dict[str, Any]:
    """config.json, if it asks for no code of its own and states the sizes that scoring needs."""
    path = folder / "config.json"
    config = read_object(path)
    check_own_code(path, config)
    for key in ("vocab_size", "max_position_embeddings"):
        positive(config, key, path)
    return config


def _check_tokenizer(folder: Path, facts: dict[str, Any], vocab: int) -> str:
    """`Export.encoding_sha256`. Raises ArtifactError for a tokenizer that the weights were not trained with."""
    path = folder / "tokenizer.json"
    hint = "put back the tokenizer that it was trained with, or export the checkpoint again"
    if not path.is_file():
        raise ArtifactError("the export has no tokenizer", where=path, hint=hint)
    wanted, found = facts.get("tokenizer_sha256"), sha256_file(path)
    if wanted is not None and found != wanted:
        problem = f"it has sha256 {found[:12]}, {EXPORT_JSON} says {wanted!s:.12}: not the tokenizer of these weights"
        raise ArtifactError(problem, where=path, hint=hint)
    with understood(path, hint=hint, problem="not a tokenizer of Hugging Face"):
        entries, added = _entries(path.read_bytes())
    if entries > vocab:
        problem = f"ids up to {entries - 1}, but vocab_size is {vocab}: not the tokenizer of these weights"
        raise ArtifactError(problem, where=path, valid=f"ids below {vocab}", hint=hint)
    return fingerprint({"tokenizer": found, "special": asdict(SpecialIds.named(folder, added))})


@functools.lru_cache(maxsize=4)  # the exports of a study carry the same megabytes of tokenizer
def _entries(definition: bytes) -> tuple[int, dict[str, int]]:
    """The largest id of a tokenizer.json + 1, and the ids of its added tokens."""
    tokenizer = parse_json(definition)
    vocab = tokenizer["model"]["vocab"]
    ids = range(len(vocab)) if isinstance(vocab, list) else vocab.values()
    added = {token["content"]: token["id"] for token in tokenizer.get("added_tokens", ())}
    return 1 + max([*ids, *added.values()]), added


def studies_in(runs: Path) -> list[str]:
    """Names of the studies below `runs` that hold an export, complete or not."""
    return sorted({path.relative_to(runs).parts[0] for path in runs.glob(f"*/{PATTERN}")})
