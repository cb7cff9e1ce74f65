"""Command lines: one kind of parser, and the options that many commands share.

In: arguments. Out: a namespace. `KEY=VALUE` overrides and other positional arguments may stand anywhere on the line.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or not (number := int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return number


COMMON: dict[str, dict[str, Any]] = {
    "study": {"metavar": "NAME", "help": "name in configs/studies, or a YAML file"},
    "documents": {
        "type": Path,
        "metavar": "DIR",
        "help": "folder with corpora/ and benchmarks/ (default: the study's)",
    },
    "data": {"metavar": "DIR", "help": "tokenizers, token shards, ... (default: MAGIC_DATA or ./data)"},
    "runs": {"metavar": "DIR", "help": "where runs are kept (default: MAGIC_RUNS or ./runs)"},
    "workers": {"type": count, "metavar": "N", "help": "processes at a time (default: one for each CPU)"},
    "ray": {"action": "store_true", "help": "work on Ray: RAY_ADDRESS, else a cluster of this machine"},
}
"""Name of an option -> what `add_argument` takes."""


class CommandParser(argparse.ArgumentParser):
    """A parser whose help ends with examples, and whose positional arguments may stand between the options."""

    def __init__(self, *, examples: str = "", **options: Any) -> None:
        super().__init__(epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def add_common(self, *names: str, **changes: Any) -> None:
        """Add options of `COMMON`; changes: other keywords of `add_argument`, e.g. `help` or `required`."""
        for name in names:
            self.add_argument(f"--{name}", **COMMON[name] | changes)

    def add_overrides(self, help: str = "dotted overrides of the study") -> None:
        self.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help=help)

    def parse(self, argv: Sequence[str] | None = None) -> argparse.Namespace:
        """Ends the process with a message and exit code 2 for what it does not know."""
        return self.parse_intermixed_args(argv)
