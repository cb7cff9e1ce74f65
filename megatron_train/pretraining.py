"""The job of a pretraining run: its shards opened and blended.

In: a config and token shards under <data>. Out: a `TrainJob` for the training loop. `pretrain.py` is the command.
"""

from __future__ import annotations

from pathlib import Path

from configs.layout import StudyFolder, shards_dir, tokenizer_dir
from configs.schema import TrainConfig
from megatron_train import cli
from megatron_train.data import PretrainData
from megatron_train.job import Resume, TrainJob, manifests
from mixtures.blend.blend import open_blend, open_shards, validation_samples


def build_job(config: TrainConfig, study: StudyFolder, data: Path, resume: Resume = "auto") -> TrainJob:
    """Open the shards and blend them. Raises ArtifactError for shards that are missing or altered."""
    shards = open_shards(config, data)
    tokenizer = tokenizer_dir(data, config.data.tokenizer)
    cli.check_tokenizer(config, tokenizer, {f"source {s}": x.manifest["tokenizer"] for s, x in shards.items()})
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
