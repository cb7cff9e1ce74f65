"""One training run: configs/<scale>.yaml and configs/<scale>_sft.yaml."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from configs.schema.base import Count, Fraction, Model, Name, NameOrNone, Positive


class ModelShape(Model):
    layers: Positive
    """Transformer blocks."""
    hidden: Positive
    """Model dimension."""
    heads: Positive
    """Attention heads; heads x head_dim need not equal hidden (Table 1 of the paper: 8 x 256)."""
    head_dim: Positive
    """Dimension of one head; even, for rotary positions."""
    ffn_hidden: Positive
    """Width of the gated MLP (the paper: 8 x hidden)."""
    vocab: Positive
    """Rows of the embedding; at least the tokenizer's size."""
    context_tokens: Positive
    """Longest sequence in tokens."""
    activation: Literal["swiglu", "geglu"] = "swiglu"
    """Gate of the MLP."""
    tied_embeddings: bool = True
    """The output layer shares the embedding's matrix."""
    norm_eps: float = 1e-5
    """Epsilon of RMSNorm."""
    rope_base: float = 10_000.0
    """Base of the rotary frequencies."""
    init_std: float = 0.02
    """Standard deviation of initial weights; output projections are scaled by 1/sqrt(2 layers)."""

    @model_validator(mode="after")
    def _exportable(self) -> ModelShape:
        if self.hidden % self.heads:
            raise ValueError(
                f"hidden ({self.hidden}) must be a multiple of heads ({self.heads}): exports are Hugging Face "
                "Llama models, which allow no other shape"
            )
        return self

    @field_validator("head_dim")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("must be even, because rotary positions turn pairs of dimensions")
        return value


class Optimizer(Model):
    lr: float = Field(gt=0)
    """Peak learning rate of AdamW."""
    end_lr_ratio: Fraction = 0.1
    """Final learning rate as a fraction of the peak."""
    warmup_steps: Count = 0
    """Linear warm-up from zero, in steps."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Shape of the decay after warm-up."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled decay of matrices; the embedding and norm gains are left out unless the next two say otherwise."""
    decay_embeddings: bool = False
    """Decay the word embedding too, which is the output matrix where they are tied."""
    decay_norms: bool = False
    """Decay the gains of RMSNorm too."""
    beta1: Fraction = 0.9
    beta2: Fraction = 0.95
    eps: float = Field(1e-8, gt=0)
    clip_norm: float = Field(1.0, ge=0)
    """Largest global gradient norm; 0 switches clipping off."""


class Batch(Model):
    sequences: Positive
    """Sequences of one optimizer step over all devices."""
    micro_sequences: Positive
    """Sequences of one forward pass on one device."""

    @model_validator(mode="after")
    def _divisible(self) -> Batch:
        if self.sequences % self.micro_sequences:
            raise ValueError(
                f"sequences ({self.sequences}) must be a multiple of micro_sequences ({self.micro_sequences})"
            )
        return self


class Parallel(Model):
    tensor: Positive = 1
    """Devices that share one copy of the model (tensor parallelism); the rest are data-parallel."""


class Budget(Model):
    """Exactly one of the fields is set; steps are derived from tokens."""

    tokens: Positive | None = None
    """Training tokens, rounded down to whole steps."""
    steps: Positive | None = None
    """Optimizer steps."""
    epochs: float | None = Field(None, gt=0)
    """Passes over an SFT set (steps = ceil(epochs x examples / batch))."""

    @model_validator(mode="after")
    def _one(self) -> Budget:
        given = [name for name, value in self if value is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"set exactly one of tokens, steps, epochs, the others to null (found {found})")
        return self


class Validation(Model):
    every_steps: Count = 0
    """Steps between validation passes; 0: only at the end."""
    sequences: Count = 64
    """Held-out sequences of each source in a pass; 0 switches validation off."""


class TrainData(Model):
    tokenizer: Name = "default"
    """Name of the tokenizer under <data>/tokenizers."""
    mixture: Name = "V1P0"
    """Name of a file in configs/mixtures; of a fine-tuning, what its parent was pretrained on."""
    sft_set: Name = "sft"
    """Name of the SFT set under <data>/sft (fine-tuning)."""
    exhaustion: Literal["error", "repeat"] = "error"
    """Where a source has fewer tokens than its share of the budget: refuse the run, or go over its text again."""
    max_epochs: float = Field(4.0, ge=1)
    """Most passes over a source that `repeat` allows (up to four cost little; Muennighoff et al., 2023)."""


class Tracking(Model):
    wandb_project: str | None = None
    """Project of Weights & Biases that shows the run too; null: TensorBoard's files only."""


NOT_IN_RESULT: Any = {
    "parallel": True,
    "log_every_steps": True,
    "checkpoint_every_steps": True,
    "keep_checkpoints": True,
    "compile": True,
    "loss_chunk_tokens": True,
    "tracking": True,
    "hang_timeout_s": True,
    "batch": {"micro_sequences"},
    "data": {"exhaustion", "max_epochs"},  # they refuse a run or let it be
}


class TrainConfig(Model):
    """configs/<scale>.yaml (pretraining) and configs/<scale>_sft.yaml (fine-tuning)."""

    scale: Name
    """Name of the size; runs of the same scale are comparable."""
    stage: Literal["pt", "sft"]
    recipe: NameOrNone = ""
    """Name of the SFT recipe; empty for pretraining."""
    model: ModelShape
    optimizer: Optimizer
    batch: Batch
    budget: Budget
    data: TrainData = TrainData()
    parallel: Parallel = Parallel()
    validation: Validation = Validation()
    precision: Literal["fp32", "bf16"] = "bf16"
    """Arithmetic of the forward and backward pass; master weights and moments are fp32."""
    compile: bool | None = None
    """torch.compile each block; null: on a GPU, not on a CPU, where a miniature has ended before its compiler."""
    loss_chunk_tokens: Positive | None = None
    """Tokens whose logits exist at once in the loss; null: measured on a GPU, about 2^28 logits on a CPU."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of initialisation and data order; of a fine-tuning, its parent's too."""
    checkpoint_tokens: tuple[Positive, ...] = ()
    """Milestones at which a checkpoint (with optimizer moments) and an export are kept, besides the last step."""
    checkpoint_every_steps: Count = 0
    """Steps between resume points; 0: only milestones and the last step."""
    keep_checkpoints: Positive = 2
    """Newest checkpoints that are kept besides the milestones: a damaged one can be done without."""
    log_every_steps: Positive = 10
    """Steps between printed lines; metrics.jsonl has every step."""
    tracking: Tracking = Tracking()
    hang_timeout_s: float = Field(600.0, ge=0)
    """Seconds without progress on any rank until the job is ended and the rank that hangs is named; 0: never.
    Longer than the longest honest pause: minutes of torch.compile, or a checkpoint on slow storage."""

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        model, tp = self.model, self.parallel.tensor
        for key, value in (("heads", model.heads), ("ffn_hidden", model.ffn_hidden), ("vocab", model.vocab)):
            if value % tp:
                raise ValueError(f"model.{key} ({value}) must be divisible by parallel.tensor ({tp})")
        if (self.stage == "sft") != bool(self.recipe):
            raise ValueError("recipe names an SFT recipe: required for stage sft, empty for stage pt")
        if self.stage == "pt" and self.budget.epochs is not None:
            raise ValueError("budget.epochs is for fine-tuning; pretraining takes budget.tokens or budget.steps")
        if self.stage == "sft" and self.budget.tokens is not None:
            raise ValueError("budget.tokens is for pretraining; fine-tuning takes budget.epochs or budget.steps")
        if self.stage == "pt" and self.checkpoint_tokens:
            last, budget = max(self.checkpoint_tokens), self.pretraining_tokens
            if last > budget:
                raise ValueError(f"checkpoint_tokens ({last:,}) lies beyond the end of training ({budget:,} tokens)")
        return self

    def identity(self) -> dict[str, Any]:
        """Everything but what changes only how a run is computed or shown; what comes out differs by rounding."""
        return self.model_dump(mode="json", exclude=NOT_IN_RESULT)

    def of(self, mixture: str, seed: int) -> TrainConfig:
        """The same training of another model: pretrained, or fine-tuned, on that mixture with that seed."""
        data = self.data.model_copy(update={"mixture": mixture})
        return self.model_copy(update={"data": data, "seed": seed})

    @property
    def tokens_per_step(self) -> int:
        return self.batch.sequences * self.model.context_tokens

    @property
    def pretraining_steps(self) -> int:
        """Steps of a pretraining budget; whole steps, at least one."""
        assert self.stage == "pt"
        return self.budget.steps or max(1, (self.budget.tokens or 0) // self.tokens_per_step)

    @property
    def pretraining_tokens(self) -> int:
        return self.pretraining_steps * self.tokens_per_step

    def milestones(self, steps: int) -> list[int]:
        """Steps of a run of `steps` whose checkpoint is kept, exported and scored; the last step always."""
        return sorted({tokens // self.tokens_per_step for tokens in self.checkpoint_tokens} | {steps})
