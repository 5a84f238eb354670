"""Where the values of a key stand in a figure."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

from tunekit.history import Trial
from tunekit.recipe import Value
from tunekit.space import Parameter

_MOST_NAMED = 8  # choices that an axis of parallel coordinates names
_LABEL_LETTERS = 24
_SPREAD = (0.7549, 0.5698)  # multiples, modulo 1, spread points evenly over a plane, always the same way


def plain(text: object) -> str:
    """`text` so that Plotly, which reads some HTML in its texts, shows it as it is."""
    return html.escape(str(text), quote=False)


class ValueScale:
    """Where the values of one key stand: on an axis, or as a share of its range."""

    def __init__(self, parameter: Parameter) -> None:
        self.parameter = parameter

    def shows(self, flat: Mapping[str, Value]) -> bool:
        """Whether the key applies to a recipe, with a value that the axis has."""
        value = flat[self.parameter.name]
        if not self.parameter.active(flat):
            return False
        if self.parameter.choices:
            return value in self.parameter.choices
        return not self.parameter.log or float(value) > 0

    def places(
        self, trials: Sequence[Trial], flats: Mapping[int, Mapping[str, Value]], up: bool = False
    ) -> list[float]:
        """Where on the axis each trial stands; those with the same choice side by side."""
        return [self._place(flats[trial.id], _SPREAD[up] * trial.id % 1) for trial in trials]

    def share(self, flat: Mapping[str, Value], trial: int) -> float | None:
        """How far up the range, 0 to 1; None if the key does not apply."""
        if not self.shows(flat):
            return None
        low, high = self._ends()
        place = self._choice(flat) if self.parameter.choices else self._place(flat, 0)
        if self.parameter.log:
            low, high, place = math.log(low), math.log(high), math.log(place)
        share = (place - low) / ((high - low) or 1)
        beside = (_SPREAD[0] * trial % 1 - 0.5) * 0.07 if self.parameter.choices else 0.0
        return round(min(max(share, 0.0), 1.0) + beside, 4)

    def axis(self, places: Sequence[float] = (), title: str = "") -> dict[str, Any]:
        """Plotly's axis over the whole range and all `places`: logarithmic where the space is."""
        if self.parameter.choices:
            names = [plain(_cut(str(choice), _LABEL_LETTERS)) for choice in self.parameter.choices]
            ends = {"range": [-0.6, len(names) - 0.4], "zeroline": False, "showgrid": False}
            return {"title": title, **ends, "tickvals": list(range(len(names))), "ticktext": names}
        low, high = min((*places, self._ends()[0])), max((*places, self._ends()[1]))
        if not self.parameter.log:
            room = 0.05 * ((high - low) or 1)
            return {"title": title, "zeroline": False, "nticks": 6, "range": [low - room, high + room]}
        first, last = math.log10(low), math.log10(high)
        room = 0.05 * ((last - first) or 1)
        ticks = {"dtick": math.ceil((last - first) / 6) if last - first >= 1.5 else "D2"}
        scale = {"type": "log", "exponentformat": "power", "zeroline": False, **ticks}
        return {"title": title, **scale, "range": [first - room, last + room]}

    @property
    def wordy(self) -> bool:
        """Whether the choices have names too long to stand beside each other below a small figure."""
        return sum(min(len(str(choice)), _LABEL_LETTERS) + 2 for choice in self.parameter.choices) > 42

    def ticks(self) -> list[tuple[float, str]]:
        """(share of the range, words) for an axis of parallel coordinates."""
        choices = self.parameter.choices
        if not choices:
            return [(share, f"{end:.4g}") for share, end in zip((0.0, 1.0), self._ends(), strict=True)]
        last = max(len(choices) - 1, 1)
        names = [(place / last, _cut(str(choice), 16)) for place, choice in enumerate(choices)]
        return names if len(names) <= _MOST_NAMED else [names[0], names[-1]]

    def _ends(self) -> tuple[float, float]:
        if self.parameter.choices:
            return 0.0, float(len(self.parameter.choices) - 1)
        assert self.parameter.low is not None and self.parameter.high is not None
        return float(self.parameter.low), float(self.parameter.high)

    def _choice(self, flat: Mapping[str, Value]) -> float:
        return float(self.parameter.choices.index(flat[self.parameter.name]))

    def _place(self, flat: Mapping[str, Value], beside: float) -> float:
        if not self.parameter.choices:
            return float(f"{float(flat[self.parameter.name]):.5g}")
        return round(self._choice(flat) + (beside - 0.5) * 0.5, 3)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."
