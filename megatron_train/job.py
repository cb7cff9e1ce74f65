"""One training run, ready to start: what the entry scripts hand to the loop."""

from __future__ import annotations

import contextlib
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from configs.artifacts import MANIFEST, fingerprint, read_object, sha256_file
from configs.errors import ArtifactError, ConfigError
from configs.exports import read_export_json
from configs.layout import RunFolder
from configs.runtime.versions import git_commit, versions
from configs.schema import TrainConfig

if TYPE_CHECKING:
    import numpy as np

    from megatron_train.data import StepData
    from megatron_train.ranks.parallel import Ranks

PACKAGES = ("torch", "megatron-core", "numpy", "safetensors", "transformer-engine")
"""provenance.json records the versions of these."""
Resume = int | Literal["auto", "never"]


@dataclass(frozen=True)
class TrainJob:
    """One run, ready to start."""

    config: TrainConfig
    folder: RunFolder
    steps: int
    tokenizer: Path
    data: Callable[[Ranks], StepData]
    data_fingerprints: dict[str, Any]
    """What the data is; part of the run's fingerprint."""
    manifests: dict[str, str] = field(default_factory=dict)
    """Manifests of the data: path below <data> -> sha256."""
    validation: dict[str, np.ndarray] = field(default_factory=dict)
    """Source -> held-out ids int64 [sequences, context + 1]."""
    bytes_per_token: dict[str, float] = field(default_factory=dict)
    """Source -> UTF-8 bytes of its held-out text for each token, end-of-document tokens counted."""
    parent: Path | None = None
    """Export to start from."""
    parent_sha256: str | None = None
    resume: Resume = "auto"
    """Where a run that is there already starts: see megatron_train/checkpoints/resume.py."""

    def __post_init__(self) -> None:
        per_step = self.config.tokens_per_step
        for tokens in self.config.checkpoint_tokens:
            if not per_step <= tokens < (self.steps + 1) * per_step:
                raise ConfigError(
                    f"checkpoint_tokens: {tokens} is outside the run", valid=f"{per_step} to {self.steps * per_step}"
                )

    @property
    def inputs(self) -> str:
        return inputs_fingerprint(self.config, self.data_fingerprints, self.parent_sha256)

    @property
    def parent_facts(self) -> dict[str, str | None] | None:
        """The export that the run starts from, as its records name it; None for a pretraining."""
        return {"export": str(self.parent), "sha256": self.parent_sha256} if self.parent else None

    def provenance(self, hardware: str, processes: int) -> dict[str, Any]:
        """The content of provenance.json: what the run is made from, and by which command, versions and machine."""
        return {
            "version": 1,
            "inputs": self.inputs,
            "data": self.data_fingerprints,
            "manifests": self.manifests,
            "parent": self.parent_facts,
            "command": " ".join(sys.argv),
            "git_commit": git_commit(),
            "python": platform.python_version(),
            "packages": versions(PACKAGES),
            "hardware": hardware,
            "processes": processes,
        }

    @property
    def milestones(self) -> list[int]:
        """Steps whose checkpoint and export are kept; the last step always."""
        return self.config.milestones(self.steps)

    @property
    def is_done(self) -> bool:
        """Is the run complete, with all of its exports, and made from the same inputs?"""
        if not self.folder.done.is_file():
            return False
        done, exports = read_object(self.folder.done), {str(step): self.exported(step) for step in self.milestones}
        return done.get("inputs") == self.inputs and done.get("export") == exports

    def exported(self, step: int) -> str | None:
        """The weights' sha256 of the export of a step; None where it is not there, not whole or of other inputs."""
        with contextlib.suppress(ArtifactError):
            facts = read_export_json(self.folder.export(step))
            if facts.get("inputs") == self.inputs:  # else a run of another config left it
                return str(facts["checkpoint"])
        return None


def inputs_fingerprint(config: TrainConfig, data: dict[str, Any], parent: str | None) -> str:
    """sha256 over the config, the data's fingerprints and the parent export's sha256."""
    return fingerprint({"config": config.identity(), "data": data, "parent": parent})


def manifests(data: Path, folders: Sequence[Path]) -> dict[str, str]:
    """Manifest of each folder, by its path below `data` -> its sha256."""
    paths = [folder / MANIFEST for folder in folders]
    return {path.relative_to(data).as_posix(): sha256_file(path) for path in paths}
