"""A study as Slurm jobs: an array a kind, scale and recipe, whose elements wait for the elements they need.

In: the units of a study. Out: a folder of sbatch scripts, of the units that each array element does, and submit.sh,
which submits them in order and prints their numbers. A job that Slurm preempts, or whose time runs out, is given its
notice two minutes before; a training saves, other work keeps what is finished, and the job is queued again.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.artifacts import write_text
from configs.layout import PROJECT_ROOT
from configs.workflow.records.records import units_dir
from configs.workflow.schedule import machines_for
from configs.workflow.units import Unit

NOTICE_S = 120
PORT = 29500


@dataclass(frozen=True)
class Cluster:
    """What a user says of it."""

    gpus_per_node: int = 8
    cpus_per_gpu: int = 8
    hours: float = 24.0
    options: tuple[str, ...] = ()
    """Further ones for every job, e.g. --partition=a100."""


@dataclass(frozen=True)
class Array:
    """Jobs of one kind; element i does the units of line i."""

    name: str
    lines: tuple[tuple[str, ...], ...]
    gpus: int
    after: str = ""
    """The array that it waits for, element for element where both have as many, else the whole of it."""


def arrays(units: Sequence[Unit]) -> list[Array]:
    """All arrays of a study but `analyse`, each behind the one it waits for."""
    found: dict[str, list[tuple[str, ...]]] = {}
    gpus: dict[str, int] = {}
    after: dict[str, str] = {}
    by_name = {unit.name: unit for unit in units}
    for unit in units:
        if unit.kind == "analyse":
            continue
        if unit.kind == "tokenize":
            name, before = "tokenize", ""
        else:
            assert unit.folder is not None
            group = f"{unit.folder.scale}-{unit.folder.stage}"
            trained = f"train-{group}"
            name, before = (f"score-{group}", trained) if unit.kind == "score" else (trained, "tokenize")
            if unit.kind == "finetune":
                before = f"train-{unit.folder.scale}-pt"
        gpus[name], after[name] = unit.gpus, before
        lines = found.setdefault(name, [])
        if unit.kind == "score" and lines and by_name[lines[-1][-1]].inputs == unit.inputs:
            lines[-1] = (*lines[-1], unit.name)  # another checkpoint of the same training
        else:
            lines.append((unit.name,))
    return [Array(name, tuple(lines), gpus[name], after[name]) for name, lines in found.items()]


def emit(folder: Path, study: str, units: Sequence[Unit], places: Mapping[str, Path], cluster: Cluster) -> Path:
    """Write the scripts; returns submit.sh.   places: runs, data, python, as all machines of the cluster see them."""
    made = arrays(units)
    submits, scores = [], []
    for array in made:
        write_text(folder / f"{array.name}.units", "".join(f"{' '.join(line)}\n" for line in array.lines))
        write_text(folder / f"{array.name}.sbatch", _script(array, study, folder, places, cluster))
        variable = _variable(array.name)
        scores += [f"${variable}"] if array.name.startswith("score") else []
        submits.append(f"{variable}=$(sbatch --parsable{_dependency(array, made)} {array.name}.sbatch)")
    analyse = Array("analyse", (("analyse",),), 0)
    write_text(folder / "analyse.units", "analyse\n")
    write_text(folder / "analyse.sbatch", _script(analyse, study, folder, places, cluster))
    # Not afterok: where a score is missing, it says which.
    submits.append(f"analyse=$(sbatch --parsable --dependency=afterany:{':'.join(scores)} analyse.sbatch)")
    names = [_variable(array.name) for array in (*made, analyse)]
    echo = " ".join(f"{name}=${name}" for name in names)
    lines = ["#!/bin/bash", f"# The jobs of study {study}, in order.", "set -euo pipefail", 'cd "$(dirname "$0")"']
    path = folder / "submit.sh"
    write_text(path, "\n".join([*lines, *submits, f'echo "{echo}"', ""]))
    path.chmod(0o755)
    return path


def _dependency(array: Array, made: Sequence[Array]) -> str:
    before = next((other for other in made if other.name == array.after), None)
    if before is None:
        return ""
    # aftercorr lets element i wait for element i alone: scores of one training do not wait for all trainings.
    kind = "aftercorr" if len(before.lines) == len(array.lines) else "afterok"
    return f" --dependency={kind}:${_variable(before.name)}"


def _variable(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)


def _script(array: Array, study: str, folder: Path, places: Mapping[str, Path], cluster: Cluster) -> str:
    nodes = machines_for(array.gpus, cluster.gpus_per_node)
    here = array.gpus // nodes
    minutes = round(60 * cluster.hours)
    directives = [
        f"--job-name={study}-{array.name}",
        f"--array=1-{len(array.lines)}",
        f"--nodes={nodes}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={max(1, here) * cluster.cpus_per_gpu}",
        *([f"--gpus-per-node={here}"] if here else []),
        f"--time={minutes // 60}:{minutes % 60:02}:00",
        f"--signal=USR1@{NOTICE_S}",
        "--requeue",
        # Without, what needs an element that failed waits for ever, and analyse for that.
        "--kill-on-invalid-dep=yes",
        "--open-mode=append",
        f"--output={folder / array.name}-%a.out",
        *cluster.options,
    ]
    python, root = shlex.quote(str(places["python"])), shlex.quote(str(PROJECT_ROOT))
    options = f"--runs {shlex.quote(str(places['runs']))} --data {shlex.quote(str(places['data']))}"
    stopped = shlex.quote(str(units_dir(places["runs"] / study)))
    launch = python
    if array.gpus > 1:
        launch += (
            f" -m torch.distributed.run --nnodes {nodes} --nproc-per-node {here} --shutdown-timeout {NOTICE_S - 10}"
        )
        launch += (
            f' --rdzv-backend c10d --rdzv-endpoint "$head:{PORT}" --rdzv-id "$SLURM_JOB_ID"'
            if nodes > 1
            else " --standalone"
        )
    head = 'head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)\n' if nodes > 1 else ""
    return f"""#!/bin/bash
{chr(10).join(f"#SBATCH {directive}" for directive in directives)}
set -euo pipefail
cd {root}
export TORCHELASTIC_SIGNALS_TO_HANDLE=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1
{head}for unit in $(sed -n "${{SLURM_ARRAY_TASK_ID}}p" {shlex.quote(str(folder / f"{array.name}.units"))}); do
  code=0
  srun {launch} study.py unit {shlex.quote(study)} "$unit" {options} || code=$?
  if [ "$code" != 0 ] && [ -e {stopped}/"$unit.stopped" ]; then
    exec scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
  fi
  [ "$code" = 0 ] || exit "$code"
done
"""
