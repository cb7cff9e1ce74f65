"""Options of score.py that would go unused, each refused with what to do: what was typed is done, or said not to be.

In: the command line, and then the checkpoints that it names. Out: nothing, or ConfigError.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from configs.errors import ConfigError
from configs.layout import StudyFolder

if TYPE_CHECKING:
    from ray_eval.checkpoints.checkpoint import Checkpoint

OTHER_CHAT = (
    "leave out --chat; or score it with lm-evaluation-harness and --apply_chat_template, and take its results over"
    " (python -m ray_eval.import_results --help)"
)


def check_together(given: argparse.Namespace) -> None:
    """Raises ConfigError for an option that another one leaves without use."""
    one = "leave out one of the two"
    if given.no_ray and given.workers is not None:
        raise ConfigError("--workers with --no-ray, which scores in this process", hint=one)
    if given.no_ray and given.gpus_per_worker < 1:
        raise ConfigError("a part of a GPU with --no-ray, which scores in this process", hint=one)
    if given.exports and given.study:
        raise ConfigError("--study with --exports, which scores those folders only", hint=one)
    if given.data and given.data_root:
        raise ConfigError("--data, which keeps commits of the Hub, with --data-root, which is read instead", hint=one)
    if given.trust_remote_code and not given.model:
        raise ConfigError("--trust-remote-code without --model", hint="leave it out: no code of an export is ever run")
    if given.chat and given.model:
        problem = f"--chat with --model {given.model[0]}: only checkpoints that were trained here are asked in chat"
        raise ConfigError(problem, hint=OTHER_CHAT)


def check_found(given: argparse.Namespace, runs: Path, chosen: Mapping[StudyFolder, Sequence[Checkpoint]]) -> None:
    """chosen: study -> its checkpoints.

    Raises ConfigError where none of them is what an option is for.
    """
    found = [checkpoint for checkpoints in chosen.values() for checkpoint in checkpoints]
    if given.chat and found and all(checkpoint.columns["stage"] == "PT" for checkpoint in found):
        problem = "--chat, and none of these checkpoints is fine-tuned: pretrained ones are asked in plain text"
        raise ConfigError(problem, hint="leave it out, or name fine-tuned ones")
    for study in chosen:
        if given.runs and study.runs != runs:
            hint = "leave out --runs; --out DIR puts the scores elsewhere"
            raise ConfigError(f"exports of study {study.name} lie in {study.runs}, not below --runs {runs}", hint=hint)
