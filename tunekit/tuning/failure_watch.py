"""When so many trials fail that going on is a waste: something is wrong that no recipe can cure."""

from __future__ import annotations

from collections import deque

from tunekit.history import Trial, commonest_reason

WINDOW = 10  # trials; as many failures may be among them as is allowed
_FIRST = 3  # trials; if all of them fail, nothing works


class FailureWatch:
    """Is shown each trial that ends or pauses in this run of a search, in that order."""

    def __init__(self, most: int) -> None:
        """
        Args:
            most: how many of the last 10 trials may fail, 0 to 10; 10 is as many as want to.
        """
        self._most = most
        self._seen = 0
        self._latest: deque[Trial] = deque(maxlen=WINDOW)

    def see(self, trial: Trial) -> str | None:
        """Take a trial that has ended or paused; says in one line why the search should stop, if it should.

        A recipe that cannot be trained and a trial that the machine lost both count.
        """
        self._seen += 1
        self._latest.append(trial)
        failed = [one for one in self._latest if one.status in ("failed", "lost")]
        if self._most >= WINDOW or not failed:
            return None
        if self._seen == len(failed) == _FIRST:
            return f"the first {_FIRST} trials failed: {commonest_reason(failed)}"
        if len(failed) > self._most:
            return f"{len(failed)} of the last {len(self._latest)} trials failed: {commonest_reason(failed)}"
        return None
