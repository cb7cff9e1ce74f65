"""The exceptions every room raises, and the one way they reach the user.

    MagicError                the user can mend it: message says what, where, and the next step; exit code 2
    ├── ConfigError           a YAML file or an override is wrong
    ├── DataError             an input (corpus, benchmark, SFT set) is missing or malformed
    ├── ArtifactError         something this project wrote is missing, truncated, changed or half there
    ├── ResourceError         the machine lacks something: disk, GPU, processes, a running cluster
    ├── DivergedError         training met a loss or gradient that is not finite; exit code 3
    ├── HangError             a process of the job hangs or has gone, so the job was ended; exit code 4
    └── Preempted             a signal ended the run after it was saved: the same command goes on; exit code 75

Our own mistakes stay `assert` and tracebacks. Under torchrun the code of the command is torchrun's own, 1.
"""

from __future__ import annotations

import errno
import functools
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, NoReturn, ParamSpec, TypeVar

RANK_0_SPEAKS_S = 15.0
LONGEST_MESSAGE = 10_000
"""Characters: a message may quote what somebody else wrote."""
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What could move a terminal's cursor, change its state or the order of its letters; and what no encoding holds."""

UNUSABLE = {
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EISDIR,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENAMETOOLONG,
    errno.ELOOP,
}
"""What the system says of a path that a user named and that cannot be what it should."""

P = ParamSpec("P")
R = TypeVar("R")


class MagicError(ValueError):
    """A user's mistake: found in `where` (file, key, row), with what would be valid and what to do next."""

    exit_code = 2

    def __init__(self, problem: str, *, where: object = None, valid: object = None, hint: str | None = None) -> None:
        parts = [f"{where}: {problem}" if where is not None else problem]
        if valid is not None:
            parts.append(f"  valid: {valid}")
        if hint is not None:
            parts.append(f"  next:  {hint}")
        super().__init__(printable("\n".join(parts)))
        self.problem = problem
        # Keyword arguments do not survive pickling of exceptions; Ray ships these between processes.
        self._kwargs: dict[str, Any] = {"where": _plain(where), "valid": _plain(valid), "hint": hint}

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(type(self), **self._kwargs), (self.problem,)


class ConfigError(MagicError):
    """A configuration file or a command-line override is wrong."""


class DataError(MagicError):
    """An input data set is missing or malformed."""


class ArtifactError(MagicError):
    """An artefact is missing, truncated, altered or incomplete; nothing was touched."""


class ResourceError(MagicError):
    """The machine lacks something that the command needs."""


class DivergedError(MagicError):
    """A loss or gradient is not finite; the weights were left as they were before it."""

    exit_code = 3


class HangError(MagicError):
    """A process of the job hangs or has gone; the others would have waited for it."""

    exit_code = 4


class Preempted(MagicError):
    """A signal asked the run to end, and it was saved. No mistake: a scheduler starts it again."""

    exit_code = 75
    """EX_TEMPFAIL of sysexits.h: try again later."""


def unprintable(text: str) -> bool:
    """Does it hold what a terminal must not be given? A line feed or a tab counts too."""
    return UNPRINTABLE.search(text) is not None or "\n" in text or "\t" in text


def printable(text: str) -> str:
    r"""For a terminal or a log: control characters but tab and line feed are spelt out (\x1b), no end is too far."""
    if len(text) > LONGEST_MESSAGE:
        text = f"{text[:LONGEST_MESSAGE]}... ({len(text) - LONGEST_MESSAGE:,} characters more)"
    return UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def _plain(value: object) -> str | None:
    return None if value is None else str(value)


def fail(error: MagicError) -> NoReturn:
    """Print the message (rank 0 only under torchrun) and end with the error's exit code."""
    if os.environ.get("RANK", "0") != "0" and not isinstance(error, Preempted):
        # torchrun ends all ranks as soon as one has ended; rank 0 first gets the time to fail in the same way and say
        # so. Still alive after that, this rank failed alone and speaks for itself.
        time.sleep(RANK_0_SPEAKS_S)
    if os.environ.get("RANK", "0") == "0" or not isinstance(error, Preempted):
        print(f"{'stopped' if isinstance(error, Preempted) else 'error'}: {error}", file=sys.stderr, flush=True)
    sys.exit(error.exit_code)


def user_errors(main: Callable[P, R]) -> Callable[P, R]:
    """Decorate a `main`: user errors become one message and exit code 2, Ctrl-C 130; neither with a traceback."""

    @functools.wraps(main)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return main(*args, **kwargs)
        except MagicError as error:
            fail(error)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr, flush=True)
            sys.exit(128 + signal.SIGINT)
        except BrokenPipeError:  # `... | head`: whoever read has what it wanted
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(128 + signal.SIGPIPE)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                fail(ResourceError("no space left on device", where=error.filename, hint="free disk space, then rerun"))
            if error.errno in UNUSABLE and error.filename is not None:
                problem = os.strerror(error.errno)
                fail(ResourceError(problem[0].lower() + problem[1:], where=error.filename, hint="name another path"))
            raise

    return wrapped


def one_line(error: BaseException) -> str:
    """What a library said, in one line."""
    return next(iter(str(error).splitlines()), type(error).__name__)
