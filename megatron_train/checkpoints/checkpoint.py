"""Checkpoints of a run: fp32 master weights and AdamW's moments, readable at any number of devices.

In and out: <run>/checkpoints/step-0001000/ in torch.distributed.checkpoint's format (every rank writes its part; a
tensor split over ranks is stored as pieces of the whole, and read back in whatever pieces the reader needs), with a
`manifest.json` of step, tokens, and the sha256 of each file. A folder appears under its final name only when complete.
On GPUs the values are copied to the host and written while training goes on.
"""

from __future__ import annotations

import itertools
import pickle
import re
import shutil
import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from packaging.version import Version
from torch import Tensor
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard

from configs.artifacts import MANIFEST, describe_file, read_object, verify_files, write_json
from configs.errors import ArtifactError, ResourceError
from configs.untrusted.checks import inside, understood
from megatron_train.optimizer.flat_adamw import KINDS, Optimizer
from megatron_train.ranks.parallel import Ranks

VERSION = 1
DESCRIPTIONS = {
    "torch.distributed.checkpoint.metadata": {
        *("Metadata", "MetadataIndex", "StorageMeta", "TensorStorageMetadata", "TensorProperties"),
        *("ChunkStorageMetadata", "_MEM_FORMAT_ENCODING"),  # not BytesStorageMetadata, whose bytes are pickles
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size", "float32"},
    "pathlib": {"PosixPath"},
    "pathlib._local": {"PosixPath"},  # where Python 3.13 says that it lies, and no other
}
"""Module -> what a checkpoint's `.metadata` needs of it; nothing here runs what it is given."""
FOLDER_NAME = re.compile(r"step-(\d{7})")


def pieces(name: str, parameter: Tensor, values: Tensor) -> dict[str, tuple[Tensor, int | None]]:
    """`values` (shaped as `parameter`) as named tensors, contiguous when whole: name -> (view, dimension).

    A gated MLP's first matrix holds [gate; up] on every rank, hence is two tensors; others are one.
    """
    if not getattr(parameter, "tensor_model_parallel", False):
        return {name: (values, None)}
    dim, stride = parameter.partition_dim, parameter.partition_stride  # type: ignore[attr-defined]
    if stride == 1:
        return {name: (values, dim)}
    gate, up = values.chunk(stride, dim=dim)
    return {f"{name}.gate": (gate, dim), f"{name}.up": (up, dim)}


class Checkpoints:
    """The checkpoints of one run.

    As a context manager it ends once what was begun is written, or raises what went wrong.
    """

    def __init__(
        self, folder: Path, optimizer: Optimizer, ranks: Ranks, inputs: str, keep: Iterable[int], newest: int
    ) -> None:
        """`inputs` is the fingerprint of what the run is made from; steps in `keep` and the `newest` others stay."""
        self.folder, self.optimizer, self.ranks, self.inputs = folder, optimizer, ranks, inputs
        self.keep, self.newest = set(keep), newest
        self.background = ranks.device.type == "cuda"
        # Files are written beside the training's own collectives, and are the CPU's business.
        self.group = cast(dist.ProcessGroup, dist.new_group(backend="gloo"))  # of all ranks, hence never "not a member"
        self._mesh = DeviceMesh.from_group(ranks.tensor_group, "cpu") if ranks.tensor_size > 1 else None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(self, step: int, tokens: int) -> None:
        """Write the checkpoint of `step`, in the background on GPUs. Raises what went wrong with the one before.

        Raises ResourceError where the files cannot be written; the earlier checkpoints are whole.
        """
        self.wait()
        state = self._state(copy=self.background)
        if not self.background:
            self._write(state, step, tokens)
            return
        self._thread = threading.Thread(target=self._try_to_write, args=(state, step, tokens), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Wait until the checkpoint that was begun is written; raises what went wrong."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def load_newest(self, found: Sequence[tuple[int, Path]]) -> dict[str, Any]:
        """Load the newest whole one of `found` (as `complete` lists them); returns its manifest.

        Says what is skipped: a damaged checkpoint stays where it is until the run reaches its step again. Raises
        ArtifactError where all of them are damaged, naming a file that is missing or altered, and for a checkpoint of
        other inputs.
        """
        chosen = torch.tensor(-1, device=self.ranks.device)
        problem: ArtifactError | None = None
        if self.ranks.is_main:
            for unfinished in sorted(self.folder.glob(".step-*.tmp")):
                print(f"skipping {unfinished.name}, which was being written when the run ended", flush=True)
            for number, (step, folder) in reversed(list(enumerate(found))):
                try:
                    manifest = read_object(folder / MANIFEST)
                    if manifest.get("inputs") != self.inputs:
                        problem = ArtifactError("this checkpoint was made from other inputs", where=folder)
                        break
                    verify_files(folder, manifest.get("files", {}), deep=True)
                except ArtifactError as error:
                    problem = problem or error
                    print(f"skipping the checkpoint of step {step}, which is damaged: {error}", flush=True)
                    continue
                chosen.fill_(number)
                print(f"resuming after step {step} ({folder})", flush=True)
                break
        if self.ranks.world > 1:
            dist.broadcast(chosen, src=0)
        if chosen < 0:
            raise problem or ArtifactError("no checkpoint is whole", where=self.folder)
        return self.load(found[int(chosen)][1])

    def load(self, folder: Path) -> dict[str, Any]:
        """Read weights and moments of a whole checkpoint into the optimizer; returns the manifest.

        Raises ArtifactError for a checkpoint of another model.
        """
        manifest = read_object(folder / MANIFEST)
        with understood(folder / MANIFEST):
            step = int(manifest["step"])
        restored = []
        state: dict[str, Tensor] = {}
        for kind, slot in itertools.product(KINDS, self.optimizer.slots):
            host = torch.empty(slot.parameter.shape)
            restored.append((kind, slot, host))
            for name, (piece, dim) in pieces(slot.name, slot.parameter, host).items():
                state[f"{kind}/{name}"] = self._of_whole(piece, dim)
        try:
            dcp.load(state, storage_reader=SafeReader(folder), process_group=self.group)
        except dcp.CheckpointException as error:
            # Newer releases of PyTorch read what older ones wrote, but not the other way round.
            writer, reader = manifest.get("torch", "0"), torch.__version__
            hint = None
            if Version(writer).release > Version(reader).release:
                hint = f"PyTorch {writer} wrote it, this is {reader}: use that or a newer one"
            raise ArtifactError(
                f"cannot be read into this model: {next(iter(error.failures.values()))[0]}",
                where=folder,
                hint=hint,
            ) from None
        for kind, slot, host in restored:
            self.optimizer.restore(kind, slot, host)
        self.optimizer.restored(step)
        return manifest

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        try:
            self.wait()
        except BaseException as error:
            if kind is None:
                raise
            print(f"error: {error}", file=sys.stderr, flush=True)  # beside the one that ends the run

    def _try_to_write(self, state: dict[str, Tensor], step: int, tokens: int) -> None:
        try:
            if self.ranks.device.type == "cuda":
                torch.cuda.set_device(self.ranks.device)  # a thread begins with the first GPU
            self._write(state, step, tokens)
        except BaseException as error:  # whatever it is, the training thread raises it
            self._error = error

    def _state(self, *, copy: bool) -> dict[str, Tensor]:
        """This rank's part: data-parallel ranks hold the same values and share the writing.

        Views into the optimizer, or copies on the host.
        """
        state: dict[str, Tensor] = {}
        for number, (kind, slot, values) in enumerate(self.optimizer.tensors()):
            if number % self.ranks.data_size != self.ranks.data:
                continue
            if copy:
                host = torch.empty(values.shape, dtype=values.dtype, pin_memory=values.is_cuda)
                values = host.copy_(values, non_blocking=True)
            for name, (piece, dim) in pieces(slot.name, slot.parameter, values).items():
                state[f"{kind}/{name}"] = self._of_whole(piece, dim)
        if self.ranks.device.type == "cuda":
            torch.cuda.synchronize(self.ranks.device)
        return state

    def _of_whole(self, values: Tensor, dim: int | None) -> Tensor:
        """A tensor-parallel rank's piece as what it is: part `dim`-wise of a whole."""
        if self._mesh is None or dim is None:
            return values
        return DTensor.from_local(values, self._mesh, [Shard(dim)])

    def _write(self, state: dict[str, Tensor], step: int, tokens: int) -> None:
        folder = self.folder / f"step-{step:07d}"
        temporary = folder.with_name(f".{folder.name}.tmp")
        if self.ranks.is_main:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        dist.barrier(self.group)
        # Nothing is copied ahead: the values are on the host, and the other way waits for the GPU's work.
        writer = dcp.FileSystemWriter(temporary, overwrite=True, per_thread_copy_ahead=0)
        try:
            dcp.save(state, storage_writer=writer, process_group=self.group)
        except dcp.CheckpointException as failed:
            rank, (error, _) = next(iter(failed.failures.items()))
            raise ResourceError(
                f"the checkpoint of step {step} cannot be written by rank {rank}: {error}",
                where=folder,
                hint="make room, then rerun: earlier checkpoints are whole, and the run goes on from the newest",
            ) from None
        files = self._describe(temporary)
        if self.ranks.is_main:
            manifest = {"version": VERSION, "step": step, "tokens": tokens, "inputs": self.inputs, "files": files}
            write_json(temporary / MANIFEST, manifest | {"torch": str(torch.__version__)}, sealed=True)
            if folder.exists():
                shutil.rmtree(folder)
            temporary.replace(folder)
            prune(self.folder, self.keep, self.newest)
        dist.barrier(self.group)

    def _describe(self, folder: Path) -> dict[str, Any]:
        """Size and sha256 of every file, each hashed by the rank that wrote it; complete on the main rank."""
        names = [".metadata"] if self.ranks.is_main else []
        names += [path.name for path in folder.glob(f"__{self.ranks.rank}_*")]
        mine = {name: describe_file(folder / name) for name in sorted(names)}
        everyone: list[Any] | None = [None] * self.ranks.world if self.ranks.is_main else None
        dist.gather_object(mine, everyone, group=self.group)
        return {name: about for files in everyone or [] for name, about in files.items()}


class SafeReader(dcp.FileSystemReader):
    """torch's reader, which runs nothing that a checkpoint holds: its `.metadata` is a pickle."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Raises ArtifactError where it needs more than the description of tensors, or names files elsewhere."""
        path = Path(self.path) / ".metadata"
        with understood(path), path.open("rb") as stream:
            try:
                metadata: Metadata = _Unpickler(stream).load()
            except (pickle.UnpicklingError, EOFError, ImportError) as error:
                raise ArtifactError(f"not a description of tensors ({error})", where=path) from None
            for info in metadata.storage_data.values():
                inside(path.parent, info.relative_path, path)
            metadata.storage_meta = metadata.storage_meta or StorageMeta()
            metadata.storage_meta.load_id = self.load_id
        return metadata


class _Unpickler(pickle.Unpickler):
    """Knows `DESCRIPTIONS` and no other class or function."""

    def find_class(self, module: str, name: str) -> Any:
        if name not in DESCRIPTIONS.get(module, ()):
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module.removesuffix("._local"), name)


def complete(checkpoints: Path) -> list[tuple[int, Path]]:
    """(step, folder) of the complete checkpoints, oldest first."""
    if not checkpoints.is_dir():
        return []
    matches = ((FOLDER_NAME.fullmatch(p.name), p) for p in checkpoints.iterdir())
    return sorted((int(m.group(1)), p) for m, p in matches if m and (p / MANIFEST).is_file())


def prune(checkpoints: Path, keep: set[int], newest: int) -> None:
    """Remove resume points beyond the `newest` that are not in `keep`, and what an interruption left half-written."""
    for leftover in checkpoints.glob(".step-*.tmp"):
        shutil.rmtree(leftover)
    for step, folder in complete(checkpoints)[:-newest]:
        if step not in keep:
            shutil.rmtree(folder)
