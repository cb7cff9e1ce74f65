"""What every model of the schema shares: no unknown keys, no changes after loading, and the ranges of numbers."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from configs.untrusted.checks import NAME_PATTERN

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
"""A name that becomes part of a path, of a score's variant or of a job's script (`configs.untrusted.checks`)."""
NameOrNone = Annotated[str, Field(pattern=f"{NAME_PATTERN}|^$")]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=())
