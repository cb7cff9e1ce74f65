"""Which checkpoints there are to score: exports on disk, named by the run folder they lie in.

Nothing of an export is believed before it is checked, and nothing in it is ever run: weights are safetensors, and a
config that asks for Python code of its own is refused. What the small files tell is checked when an export is found,
the weights when it is scored.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.artifacts import read_json, sha256_file, sha256_files, verify_files
from configs.errors import ArtifactError
from configs.layout import RunFolder, scores_dir

EXPORT_JSON = "export.json"
PATTERN = "*/*/seed*/*/export/step-*"
"""Below <runs>/<study>: scale / mixture / seed / stage."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
FOREIGN_CODE = ("auto_map", "trust_remote_code")
"""Keys of config.json by which a model brings Python code of its own."""


@dataclass(frozen=True)
class Export:
    """One complete export (its export.json, written last, is there)."""

    run: RunFolder
    folder: Path
    step: int
    tokens: int
    """Trained so far."""
    checkpoint: str
    """sha256 over the safetensors in name order, as export.json states it."""

    @property
    def stage(self) -> str:
        return "PT" if self.run.stage == "pt" else "SFT"

    @property
    def recipe(self) -> str:
        return "" if self.run.stage == "pt" else self.run.stage.removeprefix("sft-")

    @property
    def score_file(self) -> Path:
        run = self.run
        folder = scores_dir(run.runs, run.study) / run.scale / run.mixture / f"seed{run.seed}" / run.stage
        return folder / f"{self.folder.name}.parquet"

    @property
    def tokenizer_sha256(self) -> str:
        return sha256_file(self.folder / "tokenizer.json")

    @property
    def context_tokens(self) -> int:
        """The model's longest input."""
        return int(read_json(self.folder / "config.json")["max_position_embeddings"])

    def verify(self) -> None:
        """Raises ArtifactError where the weights are not those that export.json names."""
        found = sha256_files(list(self.folder.glob("*.safetensors")))
        if found != self.checkpoint:
            raise ArtifactError(
                f"the weights have sha256 {found[:12]}, {EXPORT_JSON} says {self.checkpoint[:12]} (altered)",
                where=self.folder,
                hint="delete the export and rerun its training",
            )


def find_exports(runs: Path, study: str) -> list[Export]:
    """Every export of a study that can be scored, by path."""
    return inspect_exports(runs, study)[0]


def inspect_exports(runs: Path, study: str) -> tuple[list[Export], list[ArtifactError]]:
    """Every export of a study that can be scored, by path, and for each of the others why not."""
    exports, errors = [], []
    for folder in sorted((runs / study).glob(PATTERN)):
        try:
            exports.append(read_export(folder))
        except ArtifactError as error:
            errors.append(error)
    return exports, errors


def read_export(folder: Path) -> Export:
    """Raises ArtifactError for a folder that is no complete export inside a run folder, or that cannot be scored."""
    folder = folder.resolve()
    parts = folder.parts[-7:]
    valid = "<runs>/<study>/<scale>/<mixture>/seed<k>/<stage>/export/step-<n>"
    names = re.fullmatch(r"seed(\d+)/(pt|sft-[^/]+)/export/step-\d+", "/".join(parts[3:])) if len(parts) == 7 else None
    if names is None:
        raise ArtifactError("not the export of a run", where=folder, valid=valid)
    path = folder / EXPORT_JSON
    if not path.is_file():
        hint = "it is still being written, or was cut short: let its training finish, or run it again"
        raise ArtifactError("incomplete export", where=path, hint=hint)
    info = read_json(path)
    missing = [key for key in ("step", "tokens", "checkpoint") if key not in info]
    if missing:
        raise ArtifactError(f"key {missing[0]!r} is missing", where=path, valid="step, tokens, checkpoint")
    verify_files(folder, info.get("files", {}))
    _check_weight_files(folder)
    config = _check_config(folder)
    _check_tokenizer(folder, info, config["vocab_size"])
    run = RunFolder(folder.parents[6], parts[0], parts[1], parts[2], int(names[1]), names[2])
    return Export(run, folder, int(info["step"]), int(info["tokens"]), str(info["checkpoint"]))


def _check_weight_files(folder: Path) -> None:
    """Refuse weights that are not safetensors; they are named, never opened."""
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
    raise ArtifactError("no weights", where=folder, valid="*.safetensors", hint="export the checkpoint again")


def _check_config(folder: Path) -> dict[str, Any]:
    """config.json, if it asks for no code of its own and states the sizes that scoring needs."""
    path = folder / "config.json"
    config = read_json(path)
    if not isinstance(config, dict):
        raise ArtifactError("not a JSON object", where=path, hint="export the checkpoint again")
    for key in FOREIGN_CODE:
        if config.get(key):
            raise ArtifactError(
                f"{key} is {config[key]!r}: the model would run Python code of its own, which is never done here",
                where=path,
                valid=f"a model of a known architecture, without {' or '.join(FOREIGN_CODE)}",
            )
    for key in ("vocab_size", "max_position_embeddings"):
        if not isinstance(config.get(key), int) or config[key] <= 0:
            raise ArtifactError(f"{key} is {config.get(key)!r}", where=path, valid="a positive integer")
    return config


def _check_tokenizer(folder: Path, info: dict[str, Any], vocab: int) -> None:
    """Refuse a tokenizer that is not the one the weights were trained with."""
    path = folder / "tokenizer.json"
    hint = "put back the tokenizer that it was trained with, or export the checkpoint again"
    if not path.is_file():
        raise ArtifactError("the export has no tokenizer", where=path, hint=hint)
    wanted = info.get("tokenizer_sha256")
    if wanted is not None and (found := sha256_file(path)) != wanted:
        problem = f"it has sha256 {found[:12]}, {EXPORT_JSON} says {wanted[:12]}: not the tokenizer of these weights"
        raise ArtifactError(problem, where=path, hint=hint)
    try:
        entries = _entries(path.read_bytes())
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"not a tokenizer of Hugging Face ({error!r})", where=path, hint=hint) from None
    if entries > vocab:
        problem = f"ids up to {entries - 1}, but vocab_size is {vocab}: not the tokenizer of these weights"
        raise ArtifactError(problem, where=path, valid=f"ids below {vocab}", hint=hint)


@functools.lru_cache(maxsize=4)  # the exports of a study carry the same megabytes of tokenizer
def _entries(definition: bytes) -> int:
    """The largest id of a tokenizer.json + 1."""
    tokenizer = json.loads(definition)
    vocab = tokenizer["model"]["vocab"]
    ids = range(len(vocab)) if isinstance(vocab, list) else vocab.values()
    return 1 + max([*ids, *(token["id"] for token in tokenizer.get("added_tokens", ()))])


def studies_in(runs: Path) -> list[str]:
    """Names of the studies below `runs` that hold an export, complete or not."""
    return sorted({path.relative_to(runs).parts[0] for path in runs.glob(f"*/{PATTERN}")})
