"""Loss on held-out documents: an early signal that needs no benchmark.

In: <runs>/<study>/<scale>/<mixture>/seed<k>/pt/metrics.jsonl. Out: one loss for each run at the end of pretraining.
Mixtures were trained on different text, so that their losses are comparable only on sources that all of them contain;
the mean is over those.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import ArtifactError
from configs.layout import StudyFolder, stage_name
from configs.untrusted.checks import is_name, parse_json, understood


@dataclass(frozen=True)
class HeldOut:
    """The losses of one scale."""

    sources: tuple[str, ...]
    """The sources that every mixture contains."""
    loss: np.ndarray
    """float64 [seeds, mixtures], nats a token, mean over `sources`; NaN where a run has no validation."""


def held_out(study: StudyFolder, scale: str, mixtures: Sequence[str], seeds: Sequence[int]) -> HeldOut | None:
    """The held-out losses of a scale; None where no run has a validation, or no source is in all mixtures.

    Raises ArtifactError where a metrics.jsonl is broken before its last line.
    """
    runs = itertools.product(enumerate(seeds), enumerate(mixtures))
    losses = {(s, m): _last_validation(study, scale, mixture, seed) for (s, seed), (m, mixture) in runs}
    found = {at: by_source for at, by_source in losses.items() if by_source}
    common = sorted(set.intersection(*map(set, found.values()))) if found else []
    if not common:
        return None
    loss = np.full((len(seeds), len(mixtures)), np.nan)
    for at, by_source in found.items():
        loss[at] = np.mean([by_source[source] for source in common])
    return HeldOut(tuple(common), loss)


def _last_validation(study: StudyFolder, scale: str, mixture: str, seed: int) -> dict[str, float]:
    """Source -> loss in the last validation of a pretraining; empty where there was none."""
    if not (is_name(mixture) and is_name(scale)):  # given numbers may have names that are no folders
        return {}
    path = study.run(scale, mixture, seed, stage_name()).metrics
    with understood(path, hint="rerun the training"):
        passes = [line for line in read_lines(path, '"validation"') if line.get("validation")]
        if not passes:
            return {}
        last = max(passes, key=lambda line: int(line["step"]))["validation"]
        return {str(source): float(loss) for source, loss in last.items()}


def read_lines(path: Path, containing: str = "") -> list[dict[str, Any]]:
    """The objects of a metrics.jsonl, from the lines that contain some text; none where there is no file.

    A last line cut short by an interruption is left out. Raises ArtifactError naming an earlier one that is broken, and
    any that holds NaN or infinity.
    """

    def refuse(constant: str) -> None:
        hint = "the loss of this run diverged: rerun the training, or leave its mixture out of the study"
        raise ArtifactError(f"it holds {constant}", where=f"{path}, line {number}", valid="finite numbers", hint=hint)

    lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
    out = []
    for number, line in enumerate(lines, 1):
        if containing not in line:
            continue
        try:
            out.append(dict(parse_json(line, refuse)))
        except ArtifactError:
            raise
        except (ValueError, TypeError):
            if number < len(lines):
                raise ArtifactError(
                    "not valid JSON", where=f"{path}, line {number}", hint="rerun the training"
                ) from None
    return out
