"""Which Python `make` takes: stand-ins for interpreters and for uv, which only say what they are asked."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from configs.layout import PROJECT_ROOT

TOOLS = ("bash", "cat", "chmod", "mkdir", "env", "touch")
PYTHON = """#!/bin/bash
case "$*" in
  *version_info*) exit {suits} ;;
  *ensurepip*) exit {no_venv} ;;
  --version) echo "Python {name}" ;;
  "-m venv "*)
    mkdir -p "$3/bin"; echo "{name}" > "$3/bin/python"
    echo '#!/bin/bash' > "$3/bin/pip"; chmod +x "$3/bin/pip" ;;
esac
"""
UV = """#!/bin/bash
venv="${@: -1}"
mkdir -p "$venv/bin"; echo "uv $*" > "$venv/bin/python"; echo '#!/bin/bash' > "$venv/bin/pip"; chmod +x "$venv/bin/pip"
"""


def write(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def interpreter(folder: Path, name: str, *, suits: bool = True, has_venv: bool = True) -> None:
    write(folder, name, PYTHON.format(name=name, suits=int(not suits), no_venv=int(not has_venv)))


def _tool(name: str) -> str:
    path = shutil.which(name)
    assert path, name
    return path


def make(folder: Path, *options: str) -> tuple[int, str, str]:
    """Exit code, what was printed, and who made the environment; nothing but the stand-ins is on the path."""
    for tool in TOOLS:
        if not (folder / tool).exists():
            (folder / tool).symlink_to(_tool(tool))
    command = [_tool("make"), f"VENV={folder}/venv", *options, f"{folder}/venv/bin/python"]
    environment = {"PATH": str(folder), "HOME": os.environ["HOME"]}
    done = subprocess.run(command, cwd=PROJECT_ROOT, env=environment, capture_output=True, text=True)
    made = folder / "venv" / "bin" / "python"
    return done.returncode, done.stdout + done.stderr, made.read_text().strip() if made.exists() else ""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    return folder


def test_the_first_interpreter_that_suits_is_taken_and_named(path: Path) -> None:
    interpreter(path, "python3", suits=False)
    interpreter(path, "python3.12")
    interpreter(path, "python3.11")
    code, printed, made = make(path)
    assert (code, made) == (0, "python3.12") and f"using Python python3.12, {path}/python3.12" in printed


def test_a_named_interpreter_is_taken_or_refused(path: Path) -> None:
    interpreter(path, "python3")
    interpreter(path, "mine")
    interpreter(path, "old", suits=False)
    write(path, "uv", UV)
    assert make(path, "PYTHON=mine")[2] == f"uv venv --quiet --seed --python {path}/mine {path}/venv"
    (path / "venv" / "bin" / "python").unlink()
    code, printed, made = make(path, "PYTHON=old")
    assert (code, made) == (2, "") and "Python 3.11, 3.12 or 3.13 is needed; none of these is one: old" in printed


def test_without_the_venv_module_the_package_is_named_unless_uv_is_there(path: Path) -> None:
    interpreter(path, "python3", has_venv=False)
    code, printed, made = make(path)
    assert (code, made) == (2, "") and "apt install python3-venv" in printed
    write(path, "uv", UV)
    assert make(path)[2].startswith("uv venv")


def test_where_none_suits_uv_fetches_one_or_the_package_is_named(path: Path) -> None:
    interpreter(path, "python3", suits=False)
    code, printed, _ = make(path)
    assert code == 2 and "apt install python3 python3-venv" in printed
    write(path, "uv", UV)
    code, printed, made = make(path)
    assert (code, made) == (0, f"uv venv --quiet --seed --python 3.13 {path}/venv")
    assert "using uv's Python 3.13" in printed
