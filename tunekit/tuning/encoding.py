"""Params of a search space as rows of numbers, so that models can measure how far apart recipes are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tunekit.recipe import Value
from tunekit.space import Parameter, Params, SearchSpace

Rows = NDArray[np.float64]


class SpaceEncoding:
    """A column for each parameter of a space, in the order of `space.parameters`.

    A range lies in [0, 1] on its own scale (linear or log), a choice is its index, and a parameter
    that is not active is NaN.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._parameters = list(space.parameters.values())
        self._column = {parameter.name: i for i, parameter in enumerate(self._parameters)}
        self.choice = np.array([bool(parameter.choices) for parameter in self._parameters])
        self._choices = np.array([len(parameter.choices) for parameter in self._parameters])

    def encode(self, params: Params) -> Rows:
        """One row, shape (parameters,)."""
        row: Rows = self.encode_all([params])[0]
        return row

    def encode_all(self, params: Sequence[Params]) -> Rows:
        """A row for each, shape (n, parameters)."""
        rows = np.full((len(params), len(self._parameters)), np.nan)
        for column, parameter in enumerate(self._parameters):
            active = [place for place, one in enumerate(params) if parameter.name in one]
            rows[active, column] = _units(parameter, [params[place][parameter.name] for place in active])
        return rows

    def decode(self, row: Rows) -> dict[str, Value]:
        """The params of a row: legal values, on the grid where a range has steps, active keys alone."""
        values = dict(self._space.fixed)
        for parameter, unit in zip(self._parameters, row, strict=True):
            if parameter.active(values):
                values[parameter.name] = _value(parameter, float(unit))
        return {name: values[name] for name in self._space.parameters if name in values}

    def sample(self, rng: np.random.Generator, count: int) -> Rows:
        """Rows drawn evenly (the ends of a stepped range half as often), shape (count, parameters)."""
        return self._without_inactive(self._scaled(rng.random((count, len(self._parameters)))))

    def neighbours(self, rows: Rows, rng: np.random.Generator, count: int, scale: float) -> Rows:
        """Rows near some of `rows`: about two keys differ, ranges by a normal step.

        Args:
            rows: shape (any, parameters).
            rng: of every draw.
            count: how many to make.
            scale: standard deviation of a step in a range, whose width is 1.
        Returns:
            Shape (count, parameters).
        """
        keys = len(self._parameters)
        fresh = self._scaled(rng.random((count, keys)))
        base = rows[rng.integers(len(rows), size=count)]
        base = np.where(np.isnan(base), fresh, base)  # what becomes active is drawn anew
        moves = rng.random((count, keys)) < 2 / keys
        moves[np.arange(count), rng.integers(keys, size=count)] = True
        # Steps of many lengths: some refine, some leave for the next valley.
        length = scale * np.exp(0.7 * rng.standard_normal((count, 1)))
        stepped = np.clip(base + length * rng.standard_normal((count, keys)), 0.0, 1.0)
        return self._without_inactive(np.where(moves, np.where(self.choice, fresh, stepped), base))

    def _scaled(self, uniform: Rows) -> Rows:
        return np.where(self.choice, np.floor(uniform * self._choices), uniform)

    def _without_inactive(self, rows: Rows) -> Rows:
        """NaN where the conditions of a parameter do not hold."""
        for i, parameter in enumerate(self._parameters):
            for name, allowed in parameter.when.items():
                rows[~self._holds(rows, name, allowed), i] = np.nan
        return rows

    def _holds(self, rows: Rows, name: str, allowed: tuple[Value, ...]) -> NDArray[np.bool_]:
        if name not in self._column:
            return np.full(len(rows), self._space.fixed.get(name) in allowed)
        parameter = self._parameters[self._column[name]]
        units, place = np.unique(rows[:, self._column[name]], return_inverse=True)
        holds = [not math.isnan(unit) and _value(parameter, unit) in allowed for unit in units]
        return np.array(holds)[place]


def without_nan(rows: Rows, choice: NDArray[np.bool_]) -> Rows:
    """What is not active stands in the middle of its range, or is a choice of its own.

    Args:
        rows: shape (n, parameters).
        choice: shape (parameters,), `SpaceEncoding.choice`.
    """
    filled: Rows = np.where(np.isnan(rows), np.where(choice, -1.0, 0.5), rows)
    return filled


def _units(parameter: Parameter, values: Sequence[Value]) -> Rows:
    if parameter.choices:
        return np.array([parameter.choices.index(value) for value in values], dtype=np.float64)
    low, high = _ends(parameter)
    numbers = np.array(values, dtype=np.float64)
    units: Rows = ((np.log(numbers) if parameter.log else numbers) - low) / (high - low)
    return units


def _value(parameter: Parameter, unit: float) -> Value:
    if parameter.choices:
        return parameter.choices[int(unit)]
    low, high = _ends(parameter)
    assert parameter.low is not None and parameter.high is not None
    value = low + unit * (high - low)
    value = math.exp(value) if parameter.log else value
    return parameter.on_grid(min(max(value, parameter.low), parameter.high))


def _ends(parameter: Parameter) -> tuple[float, float]:
    assert parameter.low is not None and parameter.high is not None
    if parameter.log:
        return math.log(parameter.low), math.log(parameter.high)
    return float(parameter.low), float(parameter.high)
