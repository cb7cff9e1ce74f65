"""Every kind of file of a finished study, cut short and with a bit flipped, one after the other.

In: a finished, undisturbed study. Out: a `Damage` of each file and way: what was deleted because messages said so, and
whether the study then was as before.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from injections import Broken, Run, cut, finished_files, flip
from small_study import Place, artefacts

WAYS = {"cut short": cut, "bit flipped": flip}


@dataclass
class Damage:
    kind: str
    file: str
    way: str
    advice: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    broken: str = ""

    @property
    def recovered(self) -> bool:
        return not self.broken and not self.differing


def all_files(place: Place) -> dict[str, list[Path]]:
    more = {
        "answers": place.folder / "answers.parquet",
        "page": place.folder / "report" / "index.html",
        "tokenizer": next(place.data.glob("tokenizers/*/tokenizer.json")),
        "documents": next(place.data.glob("microworld/corpora/*/*.parquet")),
        "benchmark rows": next(place.data.glob("microworld/benchmarks/*/*.parquet")),
    }
    return finished_files(place) | {kind: [path] for kind, path in more.items()}


def damage_each(place: Place, wanted: dict[str, str], seed: int = 0) -> Iterator[Damage]:
    """wanted: the artefacts of the place, which is as before whenever one is yielded that recovered; it ends else."""
    rng = random.Random(f"damages/{seed}")
    for kind, files in sorted(all_files(place).items()):
        for way, do in WAYS.items():
            victim = rng.choice(files)
            do(victim, rng)
            damage = Damage(kind, victim.relative_to(place.root).as_posix(), way)
            run = Run(place, {}, rng)
            run.start()
            try:
                damage.advice = run.finish()
            except Broken as broken:
                damage.broken = str(broken).replace(str(place.root), "<root>")
            found = artefacts(place)
            damage.differing = sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))
            yield damage
            if not damage.recovered:
                return
