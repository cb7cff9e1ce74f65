"""The status of a study in a terminal, once or live.

In: a `Survey`. Out: counts by kind of unit, then who is at work and how far, what failed with the last lines of its
log, what was stopped, what is stale and why.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from configs.workflow.status.survey import STATES, Standing, StateOf, Survey, format_progress, headline

REFRESH_S = 2.0
SHOWN = 12
"""Units of a state that are named, unless all are asked for."""
STYLES: dict[StateOf, str] = {
    "done": "green",
    "running": "cyan",
    "failed": "bold red",
    "stopped": "yellow",
    "stale": "yellow",
    "missing": "dim",
}


def show(found: Survey, everything: bool = False) -> None:
    """Print it; everything: each unit, also those that are done or not begun."""
    Console(highlight=False).print(view(found, everything))


def watch(take: Callable[[], Survey]) -> None:
    """Show it again and again, until nobody is at work or Ctrl-C is pressed."""
    with Live(console=Console(highlight=False), auto_refresh=False, screen=False) as live:
        try:
            while True:
                found = take()
                live.update(view(found), refresh=True)
                if not found.having("running"):
                    return
                time.sleep(REFRESH_S)
        except KeyboardInterrupt:
            return


def view(found: Survey, everything: bool = False) -> Group:
    parts: list[Table | Text] = [Text(headline(found), style="bold"), _counts(found)]
    if everything:
        for state in STATES:
            parts += _section(state, found.having(state), 0, len(found.standings)) if found.having(state) else []
    else:
        for state, some, further in found.telling():
            parts += _section(state, some, further, SHOWN)
    return Group(*parts)


def _counts(found: Survey) -> Table:
    counts = found.counts()
    shown = [state for state in STATES if state == "done" or found.having(state)]
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("")
    for state in shown:
        table.add_column(state, justify="right", style=STYLES[state])
    for kind, counted in counts.items():
        cells = [str(counted[state] or "") for state in shown[1:]]
        table.add_row(kind, f"{counted['done']}/{counted.total()}", *cells)
    return table


def _section(state: StateOf, some: list[Standing], further: int, most: int) -> list[Table | Text]:
    made = f", and {further} made of what is stale or missing" if further else ""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for one in some[:most]:
        lines = [progress] if (progress := format_progress(one)) else []
        lines += [line for reason in one.reasons for line in reason.splitlines()]
        table.add_row(Text(one.unit.name), Text("\n".join(lines)))
        for line in one.log:
            table.add_row("", Text(f"| {line}", style="dim"))
    if len(some) > most:
        table.add_row(Text(f"and {len(some) - most} more (--all names them)", style="dim"), "")
    return [Text(f"\n{state}{made}", style=STYLES[state]), table]
