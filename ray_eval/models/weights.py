"""Weights of a checkpoint in memory: read once, and hashed while they are read.

What is scored are exactly the bytes that were hashed, even if somebody writes to the file meanwhile. They lie in
anonymous files of this process's memory, which safetensors opens like any other, so nothing is copied or parsed twice;
where the system has no such files, in temporary ones.
"""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from configs.errors import ArtifactError

if TYPE_CHECKING:
    from torch import Tensor


BLOCK_BYTES = 1 << 22
OUTPUT_LAYER = "lm_head.weight"
ON_DISK = not hasattr(os, "memfd_create")


class Weights:
    """Tensors of every *.safetensors of a folder, by name."""

    def __init__(self, folder: Path) -> None:
        """Raises ArtifactError for a file that cannot be read."""
        self._folder = folder
        digest = hashlib.sha256()
        paths = sorted(folder.glob("*.safetensors"), key=lambda path: path.name)
        self._copies = [(path, _copy(path, digest)) for path in paths]
        self.bytes = sum(os.fstat(copy.fileno()).st_size for _, copy in self._copies)
        self.sha256 = digest.hexdigest()
        """Over the files in name order, as `configs.artifacts.sha256_files`."""

    def get(self, name: str, shape: Sequence[int]) -> Tensor:
        """Raises ArtifactError for a file that is no safetensors, a weight that is missing or misshapen."""
        if name not in self._files:
            raise ArtifactError(f"weight {name} is missing", where=self._folder)
        path, file = self._files[name]
        try:
            tensor: Tensor = file.get_tensor(name)
        except (SafetensorError, RuntimeError, TypeError, AttributeError) as error:  # a type that torch does not have
            raise ArtifactError(f"weight {name} cannot be read ({error!s:.200})", where=path) from None
        if tensor.shape != tuple(shape):
            problem = f"weight {name} is {tuple(tensor.shape)}, config.json says {tuple(shape)}"
            raise ArtifactError(problem, where=path)
        if not tensor.is_floating_point():
            raise ArtifactError(f"weight {name} holds {tensor.dtype}", where=path, valid="numbers with a fraction")
        return tensor

    def path(self, name: str) -> Path:
        """The file that holds a weight."""
        path: Path = self._files[name][0]
        return path

    @functools.cached_property
    def _files(self) -> dict[str, Any]:
        """Path and open file, by name of the weight. Made late: nothing is parsed before its hash was checked."""
        files: dict[str, Any] = {}
        for path, copy in self._copies:
            try:
                file = safe_open(copy.name if ON_DISK else f"/proc/self/fd/{copy.fileno()}", framework="pt")
            except (SafetensorError, OSError) as error:
                hint = "delete the export and rerun the training"
                raise ArtifactError(f"not a readable safetensors file ({error})", where=path, hint=hint) from None
            files |= dict.fromkeys(file.keys(), (path, file))
        return files


def weight_names(folder: Path) -> set[str]:
    """Names of the weights in every *.safetensors of a folder. Raises ArtifactError for a file that is none."""
    names: set[str] = set()
    for path in folder.glob("*.safetensors"):
        try:
            with safe_open(path, framework="pt") as file:
                names |= set(file.keys())
        except (SafetensorError, OSError) as error:
            raise ArtifactError(f"not a readable safetensors file ({error})", where=path) from None
    return names


def _copy(path: Path, digest: Any) -> IO[bytes]:
    """A file of the same contents in memory; digest: a hash that is updated with them."""
    if ON_DISK:
        copy: IO[bytes] = tempfile.NamedTemporaryFile(buffering=0)  # noqa: SIM115 (removed when the weights are let go)
    else:
        copy = os.fdopen(os.memfd_create(path.name), "r+b", buffering=0)
    try:
        with path.open("rb", buffering=0) as stream:
            while block := stream.read(BLOCK_BYTES):
                digest.update(block)
                if copy.write(block) != len(block):
                    raise MemoryError
    except OSError as error:
        raise ArtifactError(f"cannot be read ({error.strerror})", where=path) from None
    return copy
