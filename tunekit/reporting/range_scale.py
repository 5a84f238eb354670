"""The values of a range as places between its two ends, on its own scale and grid."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tunekit.space import Parameter


@dataclass(frozen=True)
class RangeScale:
    """Places on a range: 0 is its low end, 1 its high end, linear or logarithmic."""

    low: float
    high: float  # on the grid, if there is one
    step: float  # 0 for a continuous range
    log: bool

    def place(self, value: float) -> float:
        """Where `value` lies; the range must have more than one value."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        return (self._scaled(value) - low) / (high - low)

    def value(self, place: float) -> float:
        """What lies at `place`, on the grid or not; places below 0 and above 1 are outside of the range."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        scaled = low + place * (high - low)
        return math.exp(scaled) if self.log else scaled

    def share(self, first: float, last: float) -> float:
        """The share of the range that the values `first` to `last` take; each of a grid has a cell."""
        half = self.step / 2
        low, high = self._scaled(self.low - half), self._scaled(self.high + half)
        return (self._scaled(last + half) - self._scaled(first - half)) / (high - low)

    def end_share(self, end: float, at_high: bool) -> float:
        """The share of the range that the values within `end` of one of its ends take."""
        if not self.step:
            return end
        inner = self.to_grid(self.value(1 - end if at_high else end), down=not at_high)
        return self.share(inner, self.high) if at_high else self.share(self.low, inner)

    def to_grid(self, value: float, down: bool) -> float:
        """The next value of the grid below or above; of a continuous range, three digits of `value`."""
        if not self.step:
            return float(f"{value:.3g}")
        steps = (value - self.low) / self.step
        whole = math.floor(steps + 1e-8) if down else math.ceil(steps - 1e-8)
        return type(self.step)(round(self.low + whole * self.step, 12))

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.log else value


def scale_of(parameter: Parameter) -> RangeScale:
    """The scale of a key that varies over a range."""
    assert parameter.low is not None and parameter.high is not None
    step = parameter.step or (1 if parameter.integer else 0)
    return RangeScale(parameter.low, parameter.on_grid(parameter.high), step, parameter.log)
