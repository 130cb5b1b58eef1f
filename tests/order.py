"""Which module of tests runs when and where, for ``pytest -n``: the rooms with the longest modules first, so that no
module is left to run alone at the end; and what imports transformers (seconds, in every process) on one worker as
long as there is other work for the others."""

from __future__ import annotations

from typing import Any

from xdist.scheduler import LoadScopeScheduling

LONG_FIRST = (
    "report", "hostile", "cli", "tui", "compute", "sources", "check", "service", "features", "analysis",
)  # fmt: skip
TRANSFORMERS = (
    "tests/check/", "tests/compute/", "tests/sources/", "tests/cli/test_vectors.py", "tests/features/test_pair.py",
)  # fmt: skip


def rank(nodeid: str) -> int:
    """Where a test's room stands in the order."""
    room = nodeid.split("/")[1]
    return LONG_FIRST.index(room) if room in LONG_FIRST else len(LONG_FIRST)


class ByModule(LoadScopeScheduling):
    """As ``--dist loadscope``, in the order of the collection; the first worker is the one for transformers."""

    def _assign_work_unit(self, node: Any) -> None:
        first = node.gateway.id == "gw0"
        for scope in self.workqueue:
            if scope.startswith(TRANSFORMERS) == first:
                self.workqueue.move_to_end(scope, last=False)
                break
        super()._assign_work_unit(node)
