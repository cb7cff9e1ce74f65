"""Pretrain one model on one mixture.

In: a config (configs/<scale>.yaml), token shards under <data>. Out: a run folder
<runs>/<study>/<scale>/<mixture>/seed<k>/pt with checkpoints and Hugging Face exports. One process, or torchrun.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

# As a script, Python puts this folder first on the path, where `data` and `model` would be top-level modules;
# the project's root belongs there instead, so that torchrun works without installation.
ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

from configs.artifacts import MANIFEST, read_object  # noqa: E402
from configs.cost.options import hardware_of  # noqa: E402
from configs.cost.plan import Hardware, plan_run  # noqa: E402
from configs.errors import user_errors  # noqa: E402
from configs.layout import StudyFolder, shards_dir  # noqa: E402
from configs.load import load_mixture, load_train, parse_overrides  # noqa: E402
from configs.schema import TrainConfig  # noqa: E402
from megatron_train import cli  # noqa: E402
from megatron_train.job import Resume  # noqa: E402

if TYPE_CHECKING:
    from mixtures.blend.supply import Supply

EXAMPLES = """examples:
  torchrun megatron_train/pretrain.py --config configs/mini_s.yaml seed=1
  torchrun --nproc-per-node 2 megatron_train/pretrain.py --config configs/mini_s.yaml parallel.tensor=2
  python megatron_train/pretrain.py --config configs/1b.yaml --dry-run --gpus 8 data.mixture=V2P1
"""


def run(
    config: TrainConfig,
    study: StudyFolder,
    data: Path,
    hardware: Hardware | None = None,
    resume: Resume = "auto",
) -> Path:
    """Print the plan and train (or resume, or skip) one run; returns its folder. One process may do several in turn.

    `hardware` is what the plan's times are for. Raises ResourceError, listing what is missing, where the data or the
    device is, DataError where the text is too short for data.exhaustion.
    """
    rows = show_plan(config, data, hardware)
    cli.check_can_start(config, data)
    # Here, so that --help and --dry-run need no torch.
    from megatron_train.pretraining import build_job
    from megatron_train.training.loop import train
    from mixtures.blend.supply import check_supply, supplies

    # The last shards may have come while the plan was shown without them.
    check_supply(config, rows or supplies(config, measured_tokens(config, data)))
    job = build_job(config, study, data, resume)
    train(job)
    return job.folder.path


def show_plan(config: TrainConfig, data: Path, hardware: Hardware | None = None) -> list[Supply]:
    """Print the plan and, where the shards exist, what the mixture takes from each source; returns the latter."""
    from mixtures.blend.supply import supplies, table

    tokens = None if cli.missing_data(config, data) else measured_tokens(config, data)
    # Supplies come from the manifests: --dry-run opens no shard.
    rows = [] if tokens is None else supplies(config, tokens)
    cli.show_plan(plan_run(config, tokens, hardware=hardware), table(rows) if rows else "")
    return rows


def measured_tokens(config: TrainConfig, data: Path) -> dict[str, int]:
    """Training tokens of each source's shards, as their manifests say."""
    folders = {s: shards_dir(data, config.data.tokenizer, s) for s in load_mixture(config.data.mixture).weights}
    return {s: read_object(f / MANIFEST)["tokens"] for s, f in folders.items() if (f / MANIFEST).is_file()}


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    arguments = cli.parser("Pretrain one model on one mixture of sources.", EXAMPLES).parse(argv)
    config = load_train(arguments.config, parse_overrides(arguments.overrides))
    cli.expect_stage(config, "pt", arguments.config)
    data, runs = cli.roots(arguments)
    study, hardware = StudyFolder(runs, arguments.study or cli.DEFAULT_STUDY), hardware_of(arguments)
    cli.launch(
        arguments,
        lambda: show_plan(config, data, hardware),
        lambda: run(config, study, data, hardware, arguments.resume),
    )


if __name__ == "__main__":
    main()
