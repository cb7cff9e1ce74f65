"""Where a run comes from: the fingerprint that decides whether it is done, and provenance.json for the reader.

In: the resolved config, fingerprints of data and parent. Out: one sha256 over everything that changes the result, and a
record of the command, versions and machine.
"""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from configs.artifacts import fingerprint
from configs.layout import PROJECT_ROOT
from configs.schema import TrainConfig

PACKAGES = ("torch", "megatron-core", "numpy", "safetensors", "transformer-engine")


def inputs_fingerprint(config: TrainConfig, data: dict[str, Any], parent: str | None) -> str:
    """sha256 over the config, the data's fingerprints and the parent export's sha256."""
    return fingerprint({"config": config.identity(), "data": data, "parent": parent})


def provenance(
    inputs: str, data: dict[str, Any], parent: dict[str, Any] | None, hardware: str, world: int
) -> dict[str, Any]:
    """The content of provenance.json."""
    return {
        "version": 1,
        "inputs": inputs,
        "data": data,
        "parent": parent,
        "command": " ".join(sys.argv),
        "git_commit": _git_commit(),
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "hardware": hardware,
        "processes": world,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    command = ["git", "-C", str(PROJECT_ROOT), "describe", "--always", "--abbrev=40", "--dirty", "--exclude", "*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
