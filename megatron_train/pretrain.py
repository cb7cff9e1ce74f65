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
from configs.layout import StudyFolder, shards_dir, tokenized_dirs, tokenizer_dir  # noqa: E402
from configs.load import load_mixture, load_train, parse_overrides  # noqa: E402
from configs.schema import TrainConfig  # noqa: E402
from megatron_train import cli  # noqa: E402

if TYPE_CHECKING:
    from megatron_train.job import Resume, TrainJob

EXAMPLES = """examples:
  torchrun megatron_train/pretrain.py --config configs/mini_s.yaml seed=1
  torchrun --nproc-per-node 2 megatron_train/pretrain.py --config configs/mini_s.yaml parallel.tensor=2
  python megatron_train/pretrain.py --config configs/1b.yaml --dry-run --gpus 8 data.mixture=V2P1
"""


def missing_data(config: TrainConfig, data: Path) -> list[str]:
    """Inputs that mixtures.tokenize has not made yet."""
    sources = [source for source, weight in load_mixture(config.data.mixture).weights.items() if weight]
    folders = tokenized_dirs(data, config.data.tokenizer, sources, ())
    missing = [f"{name}: {folder}" for name, folder in folders.items() if not (folder / MANIFEST).is_file()]
    return missing + ([cli.TOKENIZE_HINT] if missing else [])


def measured_tokens(config: TrainConfig, data: Path) -> dict[str, int]:
    """Training tokens of each source's shards; those of every source with a weight must be there."""
    folders = {s: shards_dir(data, config.data.tokenizer, s) for s in load_mixture(config.data.mixture).weights}
    return {s: read_object(f / MANIFEST)["tokens"] for s, f in folders.items() if (f / MANIFEST).is_file()}


def build_job(config: TrainConfig, study: StudyFolder, data: Path, resume: Resume = "auto") -> TrainJob:
    """Open the shards and blend them.

    Raises ArtifactError for shards that are missing or altered, DataError where they are too few for data.exhaustion.
    """
    from megatron_train.data import PretrainData
    from megatron_train.job import TrainJob, manifests
    from mixtures.blend.blend import open_blend, open_shards, validation_samples
    from mixtures.blend.supply import check_supply, supplies

    shards = open_shards(config, data)
    tokenizer = tokenizer_dir(data, config.data.tokenizer)
    cli.check_tokenizer(config, tokenizer, {f"source {s}": x.manifest["tokenizer"] for s, x in shards.items()})
    check_supply(config, supplies(config, {s: x.num_tokens for s, x in shards.items()}))
    blend, batch = open_blend(config, shards, data), config.batch
    context, count = config.model.context_tokens, config.validation.sequences
    return TrainJob(
        config=config,
        folder=study.run(config.scale, config.data.mixture, config.seed, "pt"),
        steps=config.pretraining_steps,
        tokenizer=tokenizer,
        data=lambda ranks: PretrainData(blend, batch.sequences, batch.micro_sequences, ranks),
        data_fingerprints={"blend": blend.fingerprint, "sources": {s: x.fingerprint for s, x in shards.items()}},
        manifests=manifests(data, [tokenizer, *(shards_dir(data, config.data.tokenizer, s) for s in shards)]),
        validation={s: validation_samples(x, context, count) for s, x in shards.items()} if count else {},
        bytes_per_token={s: x.validation.bytes_per_token for s, x in shards.items() if x.validation},
        resume=resume,
    )


def run(
    config: TrainConfig,
    study: StudyFolder,
    data: Path,
    hardware: Hardware | None = None,
    resume: Resume = "auto",
) -> Path:
    """Print the plan and train (or resume, or skip) one run; returns its folder. One process may do several in turn.

    `hardware` is what the plan's times are for. Raises ResourceError, listing what is missing, where the data or the
    device is.
    """
    missing = show_plan(config, data, hardware) + cli.missing_here(config)
    if missing:
        cli.refuse(missing)
    from megatron_train.training.loop import train

    job = build_job(config, study, data, resume)
    train(job)
    return job.folder.path


def show_plan(config: TrainConfig, data: Path, hardware: Hardware | None = None) -> list[str]:
    """Print the plan and, where the shards exist, what the mixture takes from each source; returns `missing_data`."""
    from mixtures.blend.supply import supplies, table

    missing = missing_data(config, data)
    tokens = None if missing else measured_tokens(config, data)
    supply = "" if tokens is None else table(supplies(config, tokens))
    cli.show_plan(plan_run(config, tokens, hardware=hardware), supply)
    return missing


@user_errors
def main(argv: Sequence[str] | None = None) -> None:
    arguments = cli.parser("Pretrain one model on one mixture of sources.", EXAMPLES).parse_args(argv)
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
