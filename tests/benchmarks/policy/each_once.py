"""Recorded learning curves of which each answers once, so that nobody meets the same training again.

Where the nearest recipe answers as often as it is the nearest, a policy that proposes recipes close to each
other gets the same curve for all of them; a real training has a seed of its own. The price: a policy that
stops most trials early is through a table of some hundred recipes before its budget is spent.
"""

from __future__ import annotations

from collections.abc import Mapping

from tunekit.recipe import Value
from tunekit.tuning.replay import Curves


class EachOnce(Curves):
    """Recorded curves that remember which of them have answered, so each replay needs its own."""

    def __init__(self, recorded: Curves) -> None:
        super().__init__(recorded.space, recorded.epochs, recorded.records)
        self._left: set[int] = set()

    def nearest(self, params: Mapping[str, Value]) -> int:
        """The index of the record most like `params` of those that are left; when none is, all are again."""
        self._left = self._left or set(range(len(self.records)))
        found = next(int(place) for place in self.by_likeness(params) if int(place) in self._left)
        self._left.remove(found)
        return found
