"""What of a study is done, as a table of words.

In: units, their records, and how far trainings are. Out: lines of text.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from configs.workflow.progress import last_step
from configs.workflow.records import states
from configs.workflow.units import KINDS, Unit


def status_lines(folder: Path, units: Sequence[Unit]) -> list[str]:
    """folder: <runs>/<study>. A line a unit with what makes it stale, then how many of each kind are done."""
    found = states(folder, units)
    lines = [f"{'unit':<56}{'state':<10}{'step':>14}{'loss':>9}"]
    for unit in units:
        state = found[unit.name]
        line = last_step(unit.folder) if unit.folder and unit.kind in ("pretrain", "finetune") else {}
        words = "partial" if state.kind == "missing" and line else state.kind
        step = f"{line['step']}/{unit.run.steps}" if line and unit.run else ""
        loss = f"{line['loss']:.3f}" if line else ""
        lines.append(f"{unit.name:<56}{words:<10}{step:>14}{loss:>9}  {'; '.join(state.reasons)}".rstrip())
    for kind in KINDS:
        mine = [unit for unit in units if unit.kind == kind]
        lines.append(f"{kind:<10} {sum(found[unit.name].kind == 'done' for unit in mine)}/{len(mine)} done")
    return lines
