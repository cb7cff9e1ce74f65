"""Will the disks hold a study? Checked before it begins, not after days of work.

In: a study, the folders of its data and runs. Out: nothing, or a ResourceError that names the disk and what it lacks.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from configs.artifacts import size_bytes
from configs.cost.plan import plan_study
from configs.errors import ResourceError
from configs.layout import shards_dir
from configs.schema import StudyConfig
from configs.token_bytes import BYTES_PER_TOKEN

SPARE_BYTES = 500e6
"""Kept free on each disk besides what the plan needs."""


def check_disk(study: StudyConfig, source_bytes: Callable[[str], int], data: Path, runs: Path) -> None:
    """Refuse to start a study that the disks cannot hold: token shards and runs, without what is there of them.

    source_bytes: the bytes of a source of which nobody has published how many tokens it has.
    """
    plan = plan_study(study)
    tokens = {
        source: source_bytes(source) / BYTES_PER_TOKEN if count is None else count
        for source, count in plan.shard_tokens.items()
    }
    shards = {shards_dir(data, study.tokenizer.name, source): count * plan.id_bytes for source, count in tokens.items()}
    need: dict[int, float] = defaultdict(float)
    places: dict[int, dict[str, Path]] = defaultdict(dict)
    # Data and runs may lie on one disk, which then must hold both: needs are summed by disk.
    for option, root, folders in (("--data", data, shards), ("--runs", runs, {runs / study.name: plan.disk_bytes})):
        there = next(path for path in (root, *root.parents) if path.exists())
        disk = _disk(there)
        places[disk][option] = there
        need[disk] += sum(max(0.0, wanted - size_bytes(path.resolve())) for path, wanted in folders.items())
    for disk, options in places.items():
        free = shutil.disk_usage(next(iter(options.values()))).free
        if need[disk] + SPARE_BYTES > free:
            raise ResourceError(
                f"the study needs about {(need[disk] + SPARE_BYTES) / 1e9:.1f} GB here, {free / 1e9:.1f} GB are free",
                where=", ".join(map(str, dict.fromkeys(options.values()))),
                hint=f"free disk space, or name another folder with {' or '.join(options)}",
            )


def _disk(path: Path) -> int:
    return path.stat().st_dev
