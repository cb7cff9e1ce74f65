"""The command line that pretraining and fine-tuning share."""

from __future__ import annotations

from megatron_train import cli


def test_overrides_may_stand_anywhere_on_the_line() -> None:
    line = "seed=1 --config x.yaml data.mixture=V1P0 --dry-run --resume 5 model.layers=4 --gpus 8"
    given = cli.parser("Train.", "examples:\n  x").parse(line.split())
    assert given.overrides == ["seed=1", "data.mixture=V1P0", "model.layers=4"]
    assert (given.config, given.dry_run, given.resume, given.gpus) == ("x.yaml", True, 5, 8)
