"""Tables 1 to 4 of the paper, model, training, mixtures and benchmarks, beside what a study did.

In: `Panel`; the config.yaml that a run left in its folder, else study.yaml and configs/; the paper's tables
(analysis/paper). Out: `Sheet`s. A setting is a fact: it has no interval, and is the same as the paper's, differs, or
is unknown. Counts of parameters, tokens and FLOPs are those of configs/cost/__main__.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from analysis.panel.panel import STAGES, Panel
from analysis.panel.run_configs import config_of
from analysis.paper.numbers import SETUP_TITLES, displays, frame
from analysis.rendering.table import Cell, Sheet
from analysis.tables.setting_rows import (
    UNKNOWN,
    exact,
    in_paper,
    label,
    setting_row,
    setting_sheet,
    verdict_column,
)
from configs.cost.model import flops_per_token, parameters
from configs.cost.plan import training_steps
from configs.errors import ConfigError
from configs.load import (
    BENCHMARKS,
    PAPER_MIXTURES,
    load_benchmark,
    load_mixture,
    load_sources,
)
from configs.schema import TrainConfig

PAPER_SFT = {"allenai/tulu-v2-sft-mixture": "tulu-v2-mix"}
"""Name of an SFT set on the Hub -> its name in the paper."""
PRECISIONS = {"bf16": "bfloat16", "fp32": "float32"}
Getter = Callable[[TrainConfig], Cell]
MODEL: dict[str, Getter] = {  # Table 1, then what it leaves open
    "model_dimension": lambda config: config.model.hidden,
    "per_head_dimension": lambda config: config.model.head_dim,
    "number_of_heads": lambda config: config.model.heads,
    "number_of_layers": lambda config: config.model.layers,
    "expand_factor": lambda config: config.model.ffn_hidden / config.model.hidden,
    "context_length": lambda config: config.model.context_tokens,
    "vocabulary_size": lambda config: config.model.vocab,
    "total_parameters_as_stated": lambda config: parameters(config.model).total,
    "parameters outside the embedding": lambda config: parameters(config.model).outside_embedding,
    "gated MLP": lambda config: config.model.activation,
    "output embedding": lambda config: "tied" if config.model.tied_embeddings else "its own",
    "FLOPs a token, attention in full": lambda config: flops_per_token(config.model).full,
}
TRAINING: dict[str, Getter] = {  # Table 2, both halves
    "batch_size_sequences": lambda config: config.batch.sequences,
    "sequence_length": lambda config: config.model.context_tokens,
    "learning_rate": lambda config: config.optimizer.lr,
    "lr_schedule": lambda config: config.optimizer.schedule,
    "warmup_steps": lambda config: config.optimizer.warmup_steps,
    "weight_decay": lambda config: config.optimizer.weight_decay,
    "end_decay": lambda config: config.optimizer.end_lr_ratio,
    "gradient_clipping": lambda config: config.optimizer.clip_norm,
    "adam_beta1": lambda config: config.optimizer.beta1,
    "adam_beta2": lambda config: config.optimizer.beta2,
    "precision": lambda config: PRECISIONS[config.precision],
    "epochs": lambda config: config.budget.epochs,
    "epochs_as_stated_in_text": lambda config: config.budget.epochs,
}
FLOPS = "FLOPs, attention in full"


@dataclass(frozen=True)
class Used:
    """A study, and the config of a run of each scale and stage where one is known."""

    panel: Panel
    configs: dict[tuple[str, str], TrainConfig]
    unknown: tuple[str, ...]
    """Why others are not."""


def settings_tables(panel: Panel, names: Sequence[str] | None = None) -> list[Sheet]:
    """names: of `MAKERS`; default: all of which this study knows something."""
    recipes = dict(zip(STAGES, (None, panel.recipe), strict=True))
    found = {
        (scale, stage): config_of(panel.study, panel.config, scale, recipe, panel.mixtures, panel.seeds)
        for scale in panel.scales
        for stage, recipe in recipes.items()
    }
    configs = {key: config for key, config in found.items() if isinstance(config, TrainConfig)}
    used = Used(panel, configs, tuple(dict.fromkeys(why for why in found.values() if isinstance(why, str))))
    made = [MAKERS[name](used) for name in (MAKERS if names is None else names)]
    return [
        sheet for sheet in made if names is not None or any(row[verdict_column(sheet)] != UNKNOWN for row in sheet.rows)
    ]


# ---------------------------------------------------------------------------------------------- the tables


def table1(used: Used) -> Sheet:
    rows = []
    for scale in used.panel.scales:
        config = used.configs.get((scale, "PT")) or used.configs.get((scale, "SFT"))
        for name, getter in MODEL.items():
            paper = in_paper(used.panel, scale, "1", name)
            rows.append(setting_row((scale, label(name)), paper, getter(config) if config else None))
    return setting_sheet("table1", SETUP_TITLES["1"], ("scale", "hyperparameter"), rows, used.unknown)


def table2(used: Used) -> Sheet:
    """Both halves of Table 2; the fine-tuning is of the recipe shown."""
    rows = [
        setting_row((stage, scale, label(name)), in_paper(used.panel, scale, half, name), value, note)
        for stage, half in zip(STAGES, ("2a", "2b"), strict=True)
        for scale in used.panel.scales
        for name, value, note in _training(used, scale, stage, half)
    ]
    notes = (
        f"SFT recipe: {used.panel.recipe or 'none'}",
        "The paper's steps and its section 3.1 exclude each other, at PT and for 1B at SFT: docs/contradictions.md",
    )
    title = f"{SETUP_TITLES['2a']} and {SETUP_TITLES['2b'].lower()}"
    return setting_sheet("table2", title, ("stage", "scale", "hyperparameter"), rows, notes + used.unknown)


def _training(used: Used, scale: str, stage: str, half: str) -> Iterator[tuple[str, Cell, str]]:
    """(row of the paper's table or a further one, value, note)."""
    config = used.configs.get((scale, stage))
    steps = _steps(used, config) if config else None
    tokens = steps * config.tokens_per_step if config and steps else None
    scored_steps, scored_tokens = used.panel.trained.get((scale, stage), (None, None))
    for name in frame(f"table{half}")["hyperparameter"]:
        if name == "training_steps":
            yield name, *_planned(steps, scored_steps, "step")
        elif name == "tokens_as_stated_in_text":
            yield name, *_planned(tokens, scored_tokens, "token")
        elif name == "sft_dataset":
            yield name, *_sft_set(used, config)
        else:
            yield name, TRAINING[name](config) if config else None, ""
    if stage == "PT":
        yield FLOPS, tokens * flops_per_token(config.model).full if config and tokens else None, ""


def _planned(planned: int | None, scored: int | None, unit: str) -> tuple[int | None, str]:
    """The planned number, else the one in the scores, and a note where the two differ."""
    if planned is None:
        return scored, "" if scored is None else "as the scores say"
    return planned, "" if scored in (None, planned) else f"scored: {unit} {scored:,}"


def _steps(used: Used, config: TrainConfig) -> int | None:
    """Steps of a training; None for epochs over a user's own set, whose size the configs do not know."""
    if config.stage == "pt" or config.budget.epochs is None:
        return training_steps(config)
    study, known = used.panel.config, load_sources().sft
    if study is None or study.data.kind != "hub" or config.data.sft_set not in known:
        return None
    examples = known[config.data.sft_set].published_examples
    return training_steps(config, examples) if examples else None


def _sft_set(used: Used, config: TrainConfig | None) -> tuple[str | None, str]:
    study, known = used.panel.config, load_sources().sft
    if study is None or config is None:
        return None, ""
    if study.data.kind != "hub":
        return f"{config.data.sft_set}, {study.data.kind}", ""
    hub = known[config.data.sft_set].hub if config.data.sft_set in known else None
    return (PAPER_SFT.get(hub, hub), hub) if hub else (config.data.sft_set, "")


def table3(used: Used) -> Sheet:
    """Shares by group of sources. Mixtures of configs/mixtures are known by name even without study.yaml."""
    printed = {row["mixture"]: row for row in frame("table3").to_dict("records")}
    rows = []
    for mixture in used.panel.mixtures:
        row = printed.get(mixture) if used.panel.beside_paper else None
        for kind in ("web", "code", "curated"):
            paper = None
            if row is not None:
                paper = f"{row.get(f'{kind}_source', '')} {row[f'{kind}_percent']} %".strip()
            rows.append(setting_row((mixture, kind), paper, *_share(mixture, kind)))
    notes = _data_note(used, "documents")
    if absent := [name for name in PAPER_MIXTURES if name not in used.panel.mixtures and used.panel.beside_paper]:
        notes += (f"the paper's {', '.join(absent)}: not in this study",)
    return setting_sheet("table3", SETUP_TITLES["3"], ("mixture", "part"), rows, notes)


def _share(mixture: str, kind: str) -> tuple[str | None, str]:
    """Sources and per cent as Table 3 writes them, and the parts of the curated share, which it does not give."""
    try:
        weights, known = load_mixture(mixture).weights, load_sources().sources
    except ConfigError:
        return None, "configs/mixtures lacks it"
    mine = {known[s].display: 100 * w for s, w in weights.items() if known[s].kind == kind and w > 0}
    parts = ", ".join(f"{name} {percent:.4g}" for name, percent in mine.items())
    total = f"{sum(mine.values()):.4g} %"
    if kind == "curated":
        return total, parts
    return f"{' + '.join(mine)} {total}".strip(), parts if len(mine) > 1 else ""


def table4(used: Used) -> Sheet:
    """Examples scored of each benchmark."""
    panel = used.panel
    examples = dict(zip(BENCHMARKS, frame("table4")["test_examples"], strict=True))
    rows = []
    for slug in panel.benchmarks:
        keys, paper = (panel.category_of[slug], panel.displays[slug]), examples.get(slug)
        rows.append(setting_row(keys, paper and exact(paper), panel.sizes.get(slug), _split(used, slug)))
    notes = _data_note(used, "benchmarks")
    if absent := [name for slug, name in displays().items() if slug not in panel.benchmarks]:
        notes += (f"the paper's {', '.join(absent)}: not in this study",)
    sample = panel.config.scoring.sample if panel.config else None
    notes += (f"a sample of at most {sample:,} of each",) if sample else ()
    departing = [panel.displays[s] for s in panel.benchmarks if s in BENCHMARKS and load_benchmark(s).departure]
    notes += (f"known departures from lm-eval's data, docs/benchmarks.md: {', '.join(departing)}",)
    return setting_sheet("table4", SETUP_TITLES["4"], ("category", "benchmark"), rows, notes)


def _split(used: Used, slug: str) -> str:
    study = used.panel.config
    if study is None or study.synthetic or slug not in BENCHMARKS:
        return ""
    return f"split {load_benchmark(slug).split_in(local=study.data.kind == 'local')}"


def _data_note(used: Used, what: str) -> tuple[str, ...]:
    if used.panel.synthetic:
        return (f"{what}: SYNTHETIC stand-ins of the same names, made by the microworld",)
    if used.panel.config is None:
        return (f"{what}: where they came from is not known without study.yaml",)
    return (f"{what}: of a local folder",) if used.panel.config.data.kind == "local" else ()


MAKERS: dict[str, Callable[[Used], Sheet]] = {"table1": table1, "table2": table2, "table3": table3, "table4": table4}
