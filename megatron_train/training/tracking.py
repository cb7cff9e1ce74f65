"""The curves of a run for those who watch it: TensorBoard always, Weights & Biases where it is asked for.

In: the lines of metrics.jsonl, as they are written (main rank). Out: event files in <run>/tensorboard/, and a run of
the W&B project `tracking.wandb_project`. The event files only show metrics.jsonl and are written anew from it at every
start, so that no step is there twice after an interruption. Why not torch's SummaryWriter: it starts a thread for each
run, and keeps what an interruption lost in its queue.
"""

from __future__ import annotations

import json
import shutil
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from configs.artifacts import fingerprint
from configs.errors import ResourceError
from megatron_train.job import TrainJob

TRAINING = ("loss", "lr", "grad_norm", "tokens", "tokens_per_s", "mfu_full", "mfu_causal", "memory_gib")
BY_SOURCE = ("validation", "bits_per_byte")


def scalars(line: dict[str, Any]) -> dict[str, float]:
    """What a line of metrics.jsonl shows: `train/<name>` of a step, `validation/<source>` and so on of a pass."""
    shown = {f"train/{name}": line[name] for name in TRAINING if "loss" in line and name in line}
    return shown | {f"{kind}/{source}": x for kind in BY_SOURCE for source, x in line.get(kind, {}).items()}


class Tracking:
    """Everything that watches one run; it is left when the run ends. Not the main rank: nothing happens."""

    def __init__(self, job: TrainJob, is_main: bool) -> None:
        """Raises ResourceError where W&B does not let the run in."""
        self.is_main = is_main
        self.events = EventFile(job.folder.path / "tensorboard")
        project = job.config.tracking.wandb_project
        self.wandb = _start_wandb(project, job) if is_main and project else None

    def replay(self, metrics: Path) -> None:
        """Show the lines that an earlier attempt left (W&B has them: the run's id is the same)."""
        if self.is_main:
            kept = metrics.read_text().splitlines() if metrics.is_file() else []
            self.events.start(json.loads(line) for line in kept)

    def log(self, lines: list[dict[str, Any]]) -> None:
        """Show new lines; main rank only."""
        self.events.append(lines)
        if self.wandb is not None:
            for line in lines:
                # A step that is there already (a resumed run repeats a few) is left as it is.
                self.wandb.log(scalars(line), step=line["step"])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.wandb is not None:
            self.wandb.finish(exit_code=int(error is not None))


def _start_wandb(project: str, job: TrainJob) -> Any:
    import wandb

    run = {"study": job.folder.study.name, "run": job.folder.name, "inputs": job.inputs}
    try:
        return wandb.init(
            project=project,
            group=job.folder.study.name,
            name=job.folder.name,
            id=fingerprint(run)[:16],
            resume="allow",
            config=job.config.model_dump(mode="json"),
        )
    except wandb.Error as error:
        raise ResourceError(
            f"Weights & Biases: {error}",
            where=f"tracking.wandb_project={project}",
            hint="wandb login, or WANDB_MODE=offline, or tracking.wandb_project=null",
        ) from None


class EventFile:
    """One event file of scalars in a folder of its own; every write opens it, so that nothing is left to close."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}"

    def start(self, lines: Iterable[dict[str, Any]]) -> None:
        """Remove the files of earlier attempts and write their lines again."""
        shutil.rmtree(self.path.parent, ignore_errors=True)
        self.path.parent.mkdir(parents=True)
        now = time.time()
        # The second event tells a TensorBoard that has read the files removed to forget their steps.
        opening = [
            Event(wall_time=now, file_version="brain.Event:2"),
            Event(wall_time=now, step=0, session_log=SessionLog(status=SessionLog.START)),
        ]
        self._write(opening)
        self.append(lines)

    def append(self, lines: Iterable[dict[str, Any]]) -> None:
        """One event for each line that has scalars."""
        events = []
        for line in lines:
            values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars(line).items()]
            if values:
                at = line.get("time", time.time())
                events.append(Event(wall_time=at, step=line["step"], summary=Summary(value=values)))
        self._write(events)

    def _write(self, events: Iterable[Event]) -> None:
        with self.path.open("ab") as stream:
            records = RecordWriter(stream)
            for event in events:
                records.write(event.SerializeToString())
