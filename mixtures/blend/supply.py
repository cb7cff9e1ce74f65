"""What a mixture takes from each source, and what there is: the table before training, and the exhaustion policy.

In: the pretraining config and the tokens at hand, by source. Out: a row for each source, or a refusal that names the
sources whose text would repeat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from configs.errors import DataError
from configs.load import load_mixture
from configs.schema import TrainConfig
from mixtures.blend.schedule import counts, quotas


@dataclass(frozen=True)
class Supply:
    """One source of a mixture."""

    source: str
    weight: float
    wanted: int
    """Tokens trained on (labels)."""
    available: int
    """Training tokens in its shards."""

    @property
    def epochs(self) -> float:
        """Passes over the training documents."""
        return self.wanted / self.available


def supplies(config: TrainConfig, available: Mapping[str, int]) -> list[Supply]:
    """A row for each source that the config's mixture weights, exact to the token; `available` has them all."""
    weights = {source: weight for source, weight in sorted(load_mixture(config.data.mixture).weights.items()) if weight}
    # Counted by the schedule that the blend uses, because weight x tokens is off by up to one sample.
    samples = counts(quotas(list(weights.values())), config.pretraining_steps * config.batch.sequences)
    return [
        Supply(source, weight, int(n) * config.model.context_tokens, available[source])
        for (source, weight), n in zip(weights.items(), samples, strict=True)
    ]


def check_supply(config: TrainConfig, rows: Sequence[Supply]) -> None:
    """Raises DataError that names every source used for more passes than data.exhaustion allows."""
    repeat = config.data.exhaustion == "repeat"
    most = config.data.max_epochs if repeat else 1.0
    short = [row for row in rows if row.epochs > most]
    if not short:
        return
    allowed = f"data.max_epochs: {most:g}" if repeat else "data.exhaustion: error, no text twice"
    needed = max(row.epochs for row in short)
    repeating = "" if repeat else "data.exhaustion=repeat "
    raise DataError(
        "not enough text:\n"
        + "\n".join(
            f"    - {row.source}: {row.wanted:,} tokens wanted, {row.available:,} available, {row.epochs:.4g} epochs"
            for row in short
        ),
        where=f"mixture {config.data.mixture}",
        valid=f"at most {most:g} epoch{'' if most == 1 else 's'} ({allowed})",
        hint=f"tokenize more of {'it' if len(short) == 1 else 'them'}, train on fewer tokens, or let text repeat: "
        f"{repeating}data.max_epochs={_up(needed)}",
    )


def table(rows: Sequence[Supply]) -> str:
    """Lines for people: source, weight, tokens wanted and available, epochs."""
    head = ("source", "weight", "tokens wanted", "available", "epochs")
    cells = [
        (row.source, f"{row.weight:.4g}", f"{row.wanted:,}", f"{row.available:,}", f"{row.epochs:.3f}") for row in rows
    ]
    widths = [max(len(line[column]) for line in (head, *cells)) for column in range(len(head))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(map(str.rjust, line[1:], widths[1:]))]) for line in (head, *cells)
    )


def _up(epochs: float) -> str:
    """`epochs` to two decimals, rounded up."""
    return f"{-(-epochs * 100 // 1) / 100:g}"
