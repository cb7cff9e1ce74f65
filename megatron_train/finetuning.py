"""The job of a fine-tuning run: its SFT set and the export it starts from, opened and compared.

In: a config, a parent's export, a tokenized SFT set under <data>. Out: a `TrainJob` for the training loop, and what a
person should see before it starts. `sft.py` is the command.
"""

from __future__ import annotations

import os
from pathlib import Path

from configs.cost.plan import training_steps
from configs.layout import StudyFolder, stage_name, tokenizer_dir
from configs.schema import TrainConfig
from megatron_train import cli
from megatron_train.checkpoints.export import check_shape, read_export, shape_of
from megatron_train.data import SftData
from megatron_train.job import Resume, TrainJob, manifests
from megatron_train.parent_tokenizer import check_parent_tokenizer
from megatron_train.preview import check_mask, preview
from mixtures.tokens.sft import SftDataset
from mixtures.tokens.tokenizer import Tokenizer, check_identity


def build_job(
    config: TrainConfig, parent: Path, dataset: SftDataset, study: StudyFolder, data: Path, resume: Resume = "auto"
) -> TrainJob:
    """Check that the parent, the SFT set and the config belong together. `dataset`: cut to the config's context.

    Raises ArtifactError for altered files, ConfigError for a parent of another shape or tokenizer.
    """
    facts = read_export(parent)
    check_shape(parent, config.model)
    tokenizer = tokenizer_dir(data, config.data.tokenizer)
    cli.check_tokenizer(config, tokenizer, {f"SFT set {config.data.sft_set}": dataset.manifest["tokenizer"]})
    check_identity(dataset.manifest, dataset.folder, tokenizer)
    check_parent_tokenizer(parent, facts.get("tokenizer_sha256"), tokenizer)
    batch, context = config.batch, config.model.context_tokens
    return TrainJob(
        config=config,
        folder=study.run(config.scale, config.data.mixture, config.seed, stage_name(config.recipe)),
        steps=training_steps(config, len(dataset)),
        tokenizer=tokenizer,
        data=lambda ranks: SftData(dataset, batch.sequences, batch.micro_sequences, context, config.seed, ranks),
        data_fingerprints={"sft": dataset.fingerprint, "tokenizer": dataset.manifest["tokenizer"]},
        manifests=manifests(data, [tokenizer, dataset.folder]),
        parent=parent,
        parent_sha256=facts["checkpoint"],
        resume=resume,
    )


def show_longer_context(config: TrainConfig, parent: Path) -> None:
    """Say that the parent never saw the later positions, where the config's context is longer (main rank only)."""
    longest, asked = shape_of(parent).context_tokens, config.model.context_tokens
    if asked > longest and os.environ.get("RANK", "0") == "0":
        print(
            f"note         model.context_tokens is {asked:,}, the parent was trained with {longest:,} only", flush=True
        )


def show_examples(dataset: SftDataset, tokenizer: Path) -> None:
    """Print examples with the tokens that carry loss marked (main rank only). Raises DataError for a lost mask."""
    check_mask(dataset)
    if os.environ.get("RANK", "0") == "0":
        print(preview(dataset, Tokenizer.load(tokenizer)), flush=True)
