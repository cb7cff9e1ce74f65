"""One training run, ready to start: what the entry scripts hand to the loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from configs.artifacts import MANIFEST, fingerprint, read_object, sha256_file, verify_files
from configs.errors import ArtifactError, ConfigError
from configs.layout import RunFolder
from configs.schema import TrainConfig
from configs.untrusted.checks import understood

if TYPE_CHECKING:
    from megatron_train.data import StepData
    from megatron_train.ranks.parallel import Ranks

Resume = int | Literal["auto", "never"]


@dataclass(frozen=True)
class Job:
    """One run, ready to start."""

    config: TrainConfig
    folder: RunFolder
    steps: int
    tokenizer: Path
    data: Callable[[Ranks], StepData]
    data_fingerprints: dict[str, Any]
    """What the data is; part of the run's fingerprint."""
    manifests: dict[str, str] = field(default_factory=dict)
    """Where it says so: manifest, by its path below <data> -> its sha256."""
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
    def milestones(self) -> list[int]:
        """Steps whose checkpoint and export are kept; the last step always."""
        return self.config.milestones(self.steps)

    @property
    def is_done(self) -> bool:
        """Whether the run is complete, with all of its exports, and made from the same inputs."""
        if not self.folder.done.is_file():
            return False
        done, exports = read_object(self.folder.done), {str(step): self.exported(step) for step in self.milestones}
        return done.get("inputs") == self.inputs and done.get("export") == exports

    def exported(self, step: int) -> str | None:
        """The weights' sha256 of the export of a step; None where it is not there, not whole or of other inputs."""
        folder = self.folder.export(step)
        if not (folder / "export.json").is_file():
            return None
        try:
            facts = read_object(folder / "export.json")
            with understood(folder / "export.json"):
                files, checkpoint, inputs = facts["files"], str(facts["checkpoint"]), facts["inputs"]
            verify_files(folder, files)
        except ArtifactError:
            return None
        return checkpoint if inputs == self.inputs else None


def inputs_fingerprint(config: TrainConfig, data: dict[str, Any], parent: str | None) -> str:
    """sha256 over the config, the data's fingerprints and the parent export's sha256."""
    return fingerprint({"config": config.identity(), "data": data, "parent": parent})


def manifests(data: Path, folders: Sequence[Path]) -> dict[str, str]:
    """Manifest of each folder, by its path below `data` -> its sha256."""
    paths = [folder / MANIFEST for folder in folders]
    return {path.relative_to(data).as_posix(): sha256_file(path) for path in paths}
