"""Ways to damage a file: what transport, disks and malice do to bytes; and a limit on what reading them may take."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import Phase, settings
from hypothesis import strategies as st

from configs.errors import MagicError
from configs.layout import PROJECT_ROOT

MIB = 1 << 20
ADDRESS_SPACE_MIB = 4096
"""That a test may take beyond its start: what would fill the memory ends there, on any machine."""
BASELINE_MIB = 64
"""That the allocators of Python, Arrow and the tokenizers may keep beside what a test allows."""


def examples(count: int, /) -> Any:
    """`count` examples, the same on every machine. By hand: `UNTRUSTED_TIMES=20 pytest tests/untrusted`."""
    import os

    times = int(os.environ.get("UNTRUSTED_TIMES", "1"))
    phases = [phase for phase in Phase if phase is not Phase.explain]
    return settings(
        max_examples=count * times,
        deadline=None,
        derandomize=times == 1,
        database=None,
        phases=phases,
        print_blob=False,
    )


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """`content`, cut off, with bits turned over, bytes replaced, or pieces put in, left out and repeated."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.sampled_from(("cut", "flip", "replace", "insert", "delete", "repeat"))):
            case "cut":
                del data[place:]
            case "flip" if data:
                data[place] ^= 1 << draw(st.integers(0, 7))
            case "replace":
                piece = draw(PIECES)
                data[place : place + len(piece)] = piece
            case "insert":
                data[place:place] = draw(PIECES)
            case "delete":
                del data[place : place + draw(st.integers(1, 64))]
            case "repeat":
                data[place:place] = data[place : place + 64]
    return bytes(data)


PIECES = st.one_of(
    st.binary(min_size=1, max_size=16),
    st.sampled_from(
        (
            b"\0" * 8,
            b"\xff" * 8,
            b"\xff\xff\xff\x7f",
            (2**40).to_bytes(8, "little"),
            (2**63).to_bytes(8, "little"),
            b"\xed\xa0\x80",  # half of a surrogate pair
            b"\x1b[2J",
            b"-1",
            b"1e999",
            b"NaN",
            b"null",
            b"[]",
            b"{}",
            b'""',
            b"9" * 5000,
            b"[" * 5000,
            b"../" * 8,
            b"/etc/passwd",
        )
    ),
)

odd_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(),
        st.text(max_size=8),
        st.sampled_from(("../../x", "/x", "a\0b", "\ud800", "\x1b[2J", "-1", "", "nan")),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
"""What JSON can hold and nobody expects there."""


@st.composite
def retyped(draw: st.DrawFn, tree: Any) -> Any:
    """A JSON tree in which one value, at any depth, is another or has gone."""
    if isinstance(tree, (dict, list)) and tree and draw(st.integers(0, 3)):
        keys = sorted(tree) if isinstance(tree, dict) else range(len(tree))
        key = draw(st.sampled_from(keys))
        copy: Any = dict(tree) if isinstance(tree, dict) else list(tree)
        if draw(st.integers(0, 4)):
            copy[key] = draw(retyped(tree[key]))
        else:
            del copy[key]
        return copy
    return draw(odd_values)


def read_or_refuse(read: Callable[[], Any]) -> MagicError | None:
    """Run `read`: it succeeds, or raises an error for people, which is returned; any other goes through."""
    try:
        read()
    except MagicError as error:
        return error
    return None


def within_memory(code: str, *arguments: object, limit_mib: int) -> str:
    """Run `code` (which has `sys.argv[1:]`) in a process of its own; returns what it printed and its peak is checked.

    `code` should import what it needs, then call `start()`; memory is counted from there.
    """
    frame = rf"""
        import re, resource, sys
        sys.path.insert(0, {str(PROJECT_ROOT)!r})
        def mib(what):
            return int(re.search(what + r":\s+(\d+) kB", open("/proc/self/status").read())[1]) / 1024
        def start():
            global begin
            open("/proc/self/clear_refs", "w").write("5")  # the peak is counted anew
            begin = mib("VmRSS")
            bytes = (int(mib("VmSize")) + {ADDRESS_SPACE_MIB}) << 20
            resource.setrlimit(resource.RLIMIT_AS, (bytes, bytes))
        from configs.errors import MagicError
    """
    body = textwrap.indent(textwrap.dedent(code), "    ")
    script = f"{textwrap.dedent(frame)}\ntry:\n{body}\nexcept MagicError as error:\n    print('refused:', error)\n"
    script += 'print("MiB", round(mib("VmHWM") - begin))\n'
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said, _, grown = done.stdout.rpartition("MiB ")
    assert int(grown) <= limit_mib + BASELINE_MIB, f"{grown.strip()} MiB, allowed are {limit_mib}: {said}"
    return said


def files_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if not path.is_dir()}
