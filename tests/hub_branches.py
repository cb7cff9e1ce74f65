"""Where the branches of the Hub stand, in the place of the one call that would ask it."""

from __future__ import annotations

from typing import Any

FIRST, SECOND = "a" * 40, "b" * 40


class Branches:
    """In the place of HfApi: `head` is where every branch stands, or what asking raises."""

    def __init__(self) -> None:
        self.head: str | Exception = FIRST
        self.asked: list[tuple[str, str]] = []

    def dataset_info(self, hub: str, revision: str) -> Any:
        self.asked.append((hub, revision))
        if isinstance(self.head, Exception):
            raise self.head
        return type("Info", (), {"sha": self.head})
