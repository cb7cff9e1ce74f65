"""The status of a study as one static page, which loads itself again while somebody is at work.

In: a `Survey`. Out: HTML that needs nothing beside itself. Names, messages and logs are escaped.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from configs.artifacts import write_text
from configs.workflow.status.survey import STATES, Survey, format_progress, headline, survey
from configs.workflow.units import Unit

RELOAD_S = 30


def status_page(found: Survey, report: str | None = None, now: float | None = None) -> str:
    """report: its address, relative to the page; now: seconds since 1970."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    taken = datetime.fromtimestamp(time.time() if now is None else now, UTC)
    return environment.get_template("status.html.j2").render(
        found=found,
        states=STATES,
        shown=[state for state in STATES if state == "done" or found.having(state)],
        counts=found.counts(),
        headline=headline(found),
        progress=format_progress,
        report=report,
        reload_s=RELOAD_S if found.having("running") else None,
        taken=taken.strftime("%Y-%m-%d %H:%M:%S UTC"),
    )


class Page:
    """<runs>/<study>/status.html, kept up to date by the study's driver."""

    def __init__(self, folder: Path, units: Sequence[Unit]) -> None:
        self._folder, self._units = folder, units
        self._written = -math.inf

    def keep(self, at_once: bool = False) -> None:
        """Write it again where it is older than `RELOAD_S`, or at once."""
        if at_once or time.monotonic() - self._written > RELOAD_S:
            self._written = time.monotonic()
            with contextlib.suppress(OSError):  # a page that cannot be written ends no study
                write_page(survey(self._folder, self._units), self._folder / "status.html", self._folder)


def write_page(found: Survey, path: Path, folder: Path) -> None:
    """folder: <runs>/<study>, in which the page lies, or not."""
    report = folder.resolve() / "report" / "index.html"
    beside = path.resolve().parent == folder.resolve()
    address = "report/index.html" if beside else report.as_uri()
    write_text(path, status_page(found, address if report.is_file() else None))
