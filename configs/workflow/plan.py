"""What a study takes, as people ask it: units, GPU-hours, money, the critical path and the time on so many GPUs.

In: a study and the hardware to plan for. Out: lines of text; tokens, passes and disk are those of `configs.cost`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from configs.cost.description import describe
from configs.cost.plan import Hardware, plan_study
from configs.schema import StudyConfig
from configs.workflow.schedule import Schedule, schedule
from configs.workflow.units import KINDS, Unit, study_units

ON_GPUS = ("pretrain", "finetune", "score")


def seconds_of(units: Sequence[Unit], hardware: Hardware) -> dict[str, float] | None:
    """How long each unit takes on the GPUs that it works on together; None where a speed is not known.

    Tokenizing and the report run on CPUs; they count for nothing.
    """
    found = {}
    for unit in units:
        on_one_gpu_s = unit.gpu_seconds(hardware)
        if on_one_gpu_s is None:
            return None
        found[unit.name] = on_one_gpu_s / max(1, unit.gpus)
    return found


def plan_lines(study: StudyConfig, runs: Path, hardware: Hardware, dollars_an_hour: float | None = None) -> list[str]:
    """dollars_an_hour: of one GPU. Raises ConfigError where a training needs more GPUs than there are."""
    units = study_units(study, runs)
    counts = Counter(unit.kind for unit in units)
    lines = describe(plan_study(study, hardware=hardware)).splitlines()
    lines.append("units        " + ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind]))
    seconds = seconds_of(units, hardware)
    if seconds is None:
        return [*lines, "time         not known: the assumed speed is that of bf16 on a GPU, this is fp32"]
    hours = {kind: sum(seconds[u.name] * u.gpus for u in units if u.kind == kind) / 3600 for kind in ON_GPUS}
    shown = ", ".join(f"{kind} {value:,.1f}" for kind, value in hours.items() if value)
    lines.append(f"GPU-hours    {sum(hours.values()):,.1f} ({shown})")
    if dollars_an_hour is not None:
        cost = sum(hours.values()) * dollars_an_hour
        lines.append(f"money        ${cost:,.0f} at ${dollars_an_hour:g} a GPU-hour, GPUs at work only")
    return [*lines, *_time_lines(units, seconds, hardware, dollars_an_hour)]


def _time_lines(
    units: Sequence[Unit], seconds: dict[str, float], hardware: Hardware, dollars_an_hour: float | None
) -> list[str]:
    found: Schedule = schedule(units, seconds, hardware.count)
    chain = [f"{name} {seconds[name] / 3600:,.1f} h" for name in found.critical if seconds[name]]
    busy = sum(seconds[unit.name] * unit.gpus for unit in units)
    total = found.total_s / 3600
    rented = "" if dollars_an_hour is None else f", ${total * hardware.count * dollars_an_hour:,.0f} if all are rented"
    at_work = f"{busy / hardware.count / found.total_s:.0%} of them at work"
    return [
        f"critical     {found.critical_s / 3600:,.1f} h: {' -> '.join(chain)}",
        f"{f'on {hardware.count} {hardware.gpu.name}':<12} {total:,.1f} h ({total / 24:,.1f} days), {at_work}{rented}",
    ]
