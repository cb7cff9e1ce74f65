"""What a model is in a study: scale, mixture, stage, recipe, seed, step, tokens.

In: what the user says of a model, or what its run says. Out: `Identity`: columns of its score file, and the file's
path.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from configs.layout import RunFolder, StudyFolder
from configs.schema import Count, Model
from configs.schema.base import Name, NameOrNone


class Identity(Model):
    """What a model is in a study; becomes columns of its score file, and its path."""

    scale: Name
    mixture: Name
    stage: Literal["PT", "SFT"] = "PT"
    recipe: NameOrNone = ""
    """Name of the SFT set and settings; empty for a pretrained checkpoint."""
    seed: Count = 0
    step: Count
    tokens: Count
    """Trained so far."""

    @model_validator(mode="after")
    def _recipe_belongs_to_sft(self) -> Identity:
        if (self.stage == "SFT") != bool(self.recipe):
            raise ValueError(f"stage {self.stage} with recipe {self.recipe!r}: SFT needs a recipe, PT has none")
        return self

    def score_file(self, study: StudyFolder) -> Path:
        """The file in which the scorer would write the scores of the same checkpoint."""
        run = RunFolder.of_columns(study, self.model_dump())
        return run.score_file(run.export(self.step))
