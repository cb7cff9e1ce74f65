"""Which code is at work, and on what: the git commit of this folder, versions of packages, the machine."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from configs.artifacts import fingerprint, sha256_file
from configs.layout import PROJECT_ROOT

NO_SAY = ("configs/drawing", "configs/workflow", "configs/runtime", "analysis/tracing")
"""Code that decides when and where a result is made, or that only units use which name it themselves."""


def git_commit() -> str | None:
    """40 hexadecimal digits, with `-dirty` where files differ from it; None outside a repository."""
    command = ["git", "-C", str(PROJECT_ROOT), "describe", "--always", "--abbrev=40", "--dirty", "--exclude", "*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


@functools.cache
def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Package -> version, for the packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """Processors and GPUs of this machine, as Linux names them, without torch; e.g. `AMD EPYC 7J13, 2 CPUs`."""
    names = _values(Path("/proc/cpuinfo"), "model name") or [platform.machine()]
    gpus = Counter(
        name for path in Path("/proc/driver/nvidia/gpus").glob("*/information") for name in _values(path, "Model")
    )
    return ", ".join([names[0], f"{os.cpu_count()} CPUs", *(f"{count} x {name}" for name, count in gpus.items())])


def _values(path: Path, key: str) -> list[str]:
    """The values of lines `key: value`; none where there is no such file."""
    try:
        lines = [line.partition(":") for line in path.read_text(errors="replace").splitlines()]
    except OSError:
        return []
    return [value.strip() for name, _, value in lines if name.strip() == key]


@functools.cache
def code_sha256(*parts: str) -> str:
    """sha256 of the Python files of parts of the project, folders or files, without parts of `NO_SAY` inside them."""
    files: list[Path] = []
    for part in parts:
        path, without = PROJECT_ROOT / part, [PROJECT_ROOT / name for name in NO_SAY if name != part]
        below = [path] if path.is_file() else path.rglob("*.py")
        files += [file for file in below if not any(map(file.is_relative_to, without))]
    # By content in the order of their paths: `sha256_files` would sort equal names of two folders as it finds them.
    return fingerprint([(file.relative_to(PROJECT_ROOT).as_posix(), sha256_file(file)) for file in sorted(files)])
