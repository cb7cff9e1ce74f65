"""Replication: does the early score of one run rank mixtures as the late score of another run does?

In: `Panel`. Out: `Table`, without rows where no mixtures have a second seed. The report's verdict "trust" rests on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from analysis.panel.panel import Panel, Scope
from analysis.protocols.decisions import protocols
from analysis.protocols.replication import FEWEST, replicate
from analysis.protocols.usable import undecided
from analysis.rendering.table import Column, Note, Row, Table, with_q_values
from analysis.tables.decisions import protocol_keys

MEANING = (
    "only different seeds are compared, so that the luck that the checkpoints of one run share does not count; p is "
    "one-sided: a small one says that the true correlation is above 0, not how far"
)
UNTESTED = (
    "not tested, and without a row: benchmarks that are at chance or constant, early or late, and those of which fewer "
    f"than {FEWEST} mixtures have the same two seeds"
)
CORRECTION = "q: Benjamini and Bogomolov, over the pairs of early and late score and over the benchmarks of each"


def replication_table(panel: Panel) -> Table:
    """r between the early score of one seed and the late score of another, and its test."""

    def rows() -> Iterator[Row]:
        for protocol in protocols(panel):
            scales, stages = zip(protocol.early, protocol.late, strict=True)
            ends = (protocol.early, protocol.late)
            # What ranks mixtures by nothing is not tested: fewer tests leave the others more power, and whether a
            # benchmark is above chance says nothing of how its mixtures differ.
            tested = np.flatnonzero(~np.any([undecided(panel, *end) for end in ends], axis=0)).tolist()
            early, late = (panel.over_seeds(*end)[:, :, tested] for end in ends)
            for b, found in zip(tested, replicate(early, late), strict=True):
                if found.estimate.p is None:
                    continue
                keys = (*protocol_keys(protocol), panel.displays[panel.benchmarks[b]])
                extra = (found.p_late_moved, found.p_runs_moved)
                yield Row(keys, found.estimate, extra=extra, scope=Scope(scales, stages))

    return with_q_values(
        "replication",
        "Replication: r over mixtures between the early score of one seed and the late score of another",
        "early late benchmark",
        rows(),
        (Column("p, late scores moved", "{:.2g}".format), Column("p, runs moved", "{:.2g}".format)),
        family_keys=2,
        brief_extra=2,
        caveats=(Note(MEANING), Note(CORRECTION), Note(UNTESTED)),
    )


MAKERS: dict[str, Callable[[Panel], Table]] = {"replication": replication_table}
