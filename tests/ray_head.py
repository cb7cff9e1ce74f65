"""A Ray cluster that a test starts with `ray start`, and `ray job submit` to it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from configs.layout import PROJECT_ROOT


@dataclass(frozen=True)
class Head:
    address: str
    """Of the cluster, as RAY_ADDRESS."""
    jobs: str
    """Where it takes jobs."""
    environment: dict[str, str]
    """It was started in, and whoever uses it should be."""


@contextlib.contextmanager
def head_node(
    place: Path, scratch: Path, variables: dict[str, str], cpus: int = 2, options: Sequence[str] = ()
) -> Iterator[Head]:
    """A cluster of its own, started in `place` with some environment variables; scratch: folder for log and home.

    options: further ones of `ray start`.
    """
    (scratch / "home").mkdir()  # without ~/.ray/auth_token, as on a fresh machine
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")} | {
        "RAY_USAGE_STATS_ENABLED": "0",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(scratch / "home"),
    }
    environment |= variables
    log = scratch / "head.log"
    for _ in range(3):  # Ray gives up after 15 s where the machine is busy
        port, dashboard, agent = free_ports(3)  # the agent's default port is fixed: another cluster may hold it
        temporary = Path("/tmp") / f"ray-{os.getpid()}-{port}"  # sockets need a short path
        start = ["ray", "start", "--head", "--block", f"--num-cpus={cpus}", "--disable-usage-stats"]
        start += [f"--port={port}", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"]
        start += [f"--temp-dir={temporary}", *options]
        with log.open("w") as output:
            head = subprocess.Popen(
                start, cwd=place, env=environment, stdout=output, stderr=output, start_new_session=True
            )
        try:
            if has_started(head, log) and answers(f"http://127.0.0.1:{dashboard}", head):
                yield Head(f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}", environment)
                return
        finally:
            head.terminate()  # it ends the processes it started
            with contextlib.suppress(subprocess.TimeoutExpired):
                head.wait(30)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(head.pid, signal.SIGKILL)
            head.wait()
            shutil.rmtree(temporary, ignore_errors=True)
    pytest.fail(f"no Ray cluster could be started\n{log.read_text()[-3000:]}")


@contextlib.contextmanager
def second_node(
    head: Head, scratch: Path, cpus: int = 1, options: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """Another machine of the cluster, in a process group of its own, with ports and a temporary folder of its own."""
    for _ in range(3):  # Ray gives up after 30 s where the machine is busy
        (port,) = free_ports(1)
        temporary, log = Path("/tmp") / f"ray-{os.getpid()}-{port}", scratch / f"node-{port}.log"
        start = ["ray", "start", f"--address={head.address}", "--block", f"--num-cpus={cpus}", "--disable-usage-stats"]
        start += [f"--node-manager-port={port}", f"--temp-dir={temporary}", *options]
        with log.open("w") as output:
            node = subprocess.Popen(start, env=head.environment, stdout=output, stderr=output, start_new_session=True)
        try:
            if has_started(node, log):
                yield node
                return
        finally:
            kill_node(node)
            shutil.rmtree(temporary, ignore_errors=True)
    pytest.fail(f"no second machine could be started\n{log.read_text()[-3000:]}")


def kill_node(node: subprocess.Popen[bytes]) -> None:
    """As a machine dies: all of its processes at once, without a word to anybody."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in [*psutil.Process(node.pid).children(recursive=True), node]:
            with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
                process.kill()
    node.wait()


def has_started(node: subprocess.Popen[bytes], log: Path) -> bool:
    """Wait until the machine is part of its cluster; False where it ended first."""
    while node.poll() is None and "Ray runtime started" not in log.read_text():
        time.sleep(0.2)
    return node.poll() is None


def answers(address: str, head: subprocess.Popen[bytes]) -> bool:
    """Wait until the cluster takes jobs; False where its head ended first."""
    while head.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/api/jobs/", timeout=10).close()
            return True
        except urllib.error.HTTPError:  # 401: it is there and wants the token that `ray job` knows
            return True
        except OSError:
            time.sleep(1)
    return False


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def submitted(script: list[str], head: Head, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
    """`ray job submit` in the project folder, with the arguments after it."""
    for _ in range(30):
        done = subprocess.run(
            ["ray", "job", "submit", *script],
            cwd=PROJECT_ROOT,
            env=head.environment | {"RAY_API_SERVER_ADDRESS": head.jobs},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if "No available agent to submit job" not in done.stderr:  # the dashboard is up before the node is
            break
        time.sleep(2)
    return done
