"""Lock files: who holds one is named, and it goes with its process."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from configs.errors import ResourceError
from configs.layout import PROJECT_ROOT
from configs.runtime.locks import held, holder, written_in


def test_who_holds_it_is_named_and_known_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "a" / "work.lock"
    assert holder(path) is None and written_in(path) is None
    with held(path, "the work", about={"what": "more"}, hint="do it later"):
        with pytest.raises(ResourceError) as refused, held(path, "the work", hint="do it later"):
            pass
        here = f"{os.getpid()} on {socket.gethostname()}"
        assert str(refused.value) == f"{path}: another process is at work on the work: {here}\n  next:  do it later"
        found = holder(path)
        assert found is not None and found["what"] == "more" and abs(found["began"] - time.time()) < 60
    assert holder(path) is None
    last = written_in(path)
    assert last is not None and last["pid"] == os.getpid()
    with held(path, "the work"):  # who comes later stands alone in it
        found = holder(path)
        assert found is not None and "what" not in found


def test_who_waits_gets_it_from_a_process_that_is_killed(tmp_path: Path) -> None:
    script = "import sys, time; from pathlib import Path; from configs.runtime.locks import held\n"
    script += "with held(Path(sys.argv[1]), 'it'): print('here', flush=True); time.sleep(60)"
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "lock")], cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None and other.stdout.readline() == "here\n"
    with pytest.raises(ResourceError, match=f"at work on it: {other.pid} on "), held(tmp_path / "lock", "it"):
        pass
    other.kill()
    with held(tmp_path / "lock", "it", wait_s=20.0):
        pass
    other.wait()


def test_children_do_not_keep_it(tmp_path: Path) -> None:
    """Neither a forked one nor a command, both of which live on here when it is let go."""
    with held(tmp_path / "lock", "it"):
        forked = os.fork()
        if not forked:
            time.sleep(60)
            os._exit(0)
        command = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with held(tmp_path / "lock", "it", wait_s=0.5):  # fork returned here before the child had closed it
            assert command.poll() is None and os.waitpid(forked, os.WNOHANG) == (0, 0)
    finally:
        os.kill(forked, 9)
        os.waitpid(forked, 0)
        command.kill()
        command.wait()


def test_a_filesystem_without_locks_turns_nobody_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_locks(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("configs.artifacts.fcntl.flock", without_locks)
    with held(tmp_path / "lock", "it"), held(tmp_path / "lock", "it"):
        assert holder(tmp_path / "lock") is None
