"""A model of recipes that learns from every rung: many trials at the first, few at the last.

Recursive co-kriging (Kennedy and O'Hagan 2000; Le Gratiet and Garnier 2014, section 3). At the first rung
a Gaussian process is fitted to all trials. At each further rung, what a trial has there is `rho` times
what it had at the rung before, plus a constant, plus a difference that another Gaussian process explains
from the recipe. Because trials of a higher rung have values at all lower ones, the processes are fitted one
by one. A model of an earlier search can stand before the first rung, in just the same way (Golovin et al.
2017, Google Vizier, section 3.3): where it misleads, its `rho` goes to 0.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from threadpoolctl import ThreadpoolController

from tunekit.recipe import Value
from tunekit.space import SearchSpace
from tunekit.tuning.encoding import Rows, SpaceEncoding, without_nan
from tunekit.tuning.evidence import Evidence, Observation, telling, with_failures_worst
from tunekit.tuning.gaussian_process import Array, GaussianProcess, Hyperparameters, fit_hyperparameters

_ENOUGH_AT_A_RUNG = 4
_LEARNS_FROM = 300  # trials of a rung at most, since the cost of a suggestion grows with their square
_FITTED_ON = 120  # trials from which hyperparameters are found
_EVEN, _NEAR, _REFINED = 150, 150, 60  # candidates
# Weight of the belief that a rung's values are those of the rung below, in trials of unit variance.
_BELIEF = 2.0
_LEAST_RHO = 0.5  # by which a change is brought to the scale of the rung before: less would blow it up
_LEAST_WIDTH = 0.2  # of a rung's scale, as a share of all that its values span
_ROOT_OF_TWO_PI = (2 * np.pi) ** 0.5
_TOO_CLOSE = 0.98  # correlation with a trial of this search from which on a candidate teaches nothing new
_PENALTY = 20.0  # for that, in logarithms of the improvement
_GOOD = 8  # trials around which candidates are drawn


def taught_by(space: SearchSpace, searches: Sequence[Evidence]) -> RungModel | None:
    """What searches that came before teach, each on top of the one before it; None if there are none.

    Args:
        space: what varies.
        searches: oldest first.
    """
    encoding = SpaceEncoding(space)
    model: RungModel | None = None
    with _one_thread():
        for evidence in searches:
            model = RungModel(encoding, evidence, model)
    return model


def suggest_by_model(
    space: SearchSpace, evidence: Evidence, earlier: RungModel | None, seed: int
) -> dict[str, Value]:
    """The recipe that promises most at the last rung: highest expected improvement on the best trial.

    Args:
        space: what varies.
        evidence: of this search, with a trial at the first rung. Of pending trials the model believes
            its own mean, so that parallel trials spread out.
        earlier: what searches that came before have taught.
        seed: of the candidates.
    """
    encoding = SpaceEncoding(space)
    with _one_thread():
        model = RungModel(encoding, evidence, earlier)
        pending = evidence.pending(evidence.epochs[0])
        if pending:
            model.believe(encoding.encode_all(pending))
        return encoding.decode(_most_promising(encoding, model, np.random.default_rng(seed)))


def _one_thread() -> AbstractContextManager[Any]:
    """For matrices this small, threads cost more than they give, most of all beside trials that train."""
    limited: AbstractContextManager[Any] = _linear_algebra().limit(limits=1, user_api="blas")
    return limited


@cache
def _linear_algebra() -> ThreadpoolController:
    """The libraries that this process has loaded; looking for them takes milliseconds."""
    return ThreadpoolController()


class RungModel:
    """Predicts the value at the highest rung that enough trials have reached, on a scale of its own."""

    def __init__(self, encoding: SpaceEncoding, evidence: Evidence, earlier: RungModel | None = None) -> None:
        """
        Args:
            encoding: of the space.
            evidence: with a trial at the first rung.
            earlier: what an earlier search taught.
        """
        self._choice = encoding.choice
        self._earlier = earlier
        self._known: dict[bytes, float] = {}  # `mean` of rows that were asked for
        self._layers: list[_Layer] = []
        self.rows: list[Rows] = []  # of the trials at each rung of this search, of many the telling ones
        for before, rung in zip((None, *evidence.epochs), evidence.epochs, strict=False):
            seen = evidence.at(rung)
            if len(seen) < (_ENOUGH_AT_A_RUNG if before else 1):
                break
            recipes = _Recipes(encoding, seen)
            below: _Below | None = None
            if before:
                below = _Below(_values(seen, before), Scale.of(_values(evidence.at(before), before)))
            elif earlier:
                below = _Below(earlier.remembered(recipes.rows(range(len(seen)))), None)
            values = _values(seen, rung)
            self.rows.append(recipes.rows(telling(values, _LEARNS_FROM)))
            self._layers.append(_layer(recipes, below, values, self._choice))

    def predict(self, rows: Rows) -> tuple[Array, Array]:
        """Mean and standard deviation at the highest rung, each of shape (n,); larger is better."""
        mean, variance = self._moments(rows)
        return mean, np.sqrt(variance)

    def _moments(self, rows: Rows) -> tuple[Array, Array]:
        """Mean and variance."""
        nothing = np.zeros(len(rows))
        mean, variance = self._earlier._moments(rows) if self._earlier else (nothing, nothing)
        filled = without_nan(rows, self._choice)
        for layer in self._layers:
            own_mean, own_variance = layer.process.mean_and_variance(filled)
            mean = layer.rho * mean + layer.shift + layer.spread * own_mean
            variance = layer.rho**2 * variance + layer.spread**2 * own_variance
        return mean, variance

    def mean(self, rows: Rows) -> Array:
        """That of `predict`, for a fraction of its time."""
        return self._upon(self._earlier.mean(rows) if self._earlier else np.zeros(len(rows)), rows)

    def mean_of_tried(self, rows: Rows) -> Array:
        """`mean` of rows of this search, for which earlier models are asked once."""
        return self._upon(self._earlier.remembered(rows) if self._earlier else np.zeros(len(rows)), rows)

    def remembered(self, rows: Rows) -> Array:
        """`mean` of rows that are asked for again and again."""
        keys = [row.tobytes() for row in rows]
        new = [place for place, key in enumerate(keys) if key not in self._known]
        if new:
            self._known.update(zip([keys[place] for place in new], self.mean(rows[new]), strict=True))
        return np.array([self._known[key] for key in keys])

    def _upon(self, mean: Array, rows: Rows) -> Array:
        """The layers of this search on top of a mean."""
        filled = without_nan(rows, self._choice)
        for layer in self._layers:
            mean = layer.rho * mean + layer.shift + layer.spread * layer.process.mean(filled)
        return mean

    def change(self, rows: Rows) -> Array:
        """By how much recipes rise to the highest rung from the one before, more than others do, shape (n,).

        In widths of the scale of the one before; 0 if there is one rung alone.
        """
        if len(self._layers) < 2:
            return np.zeros(len(rows))
        last = self._layers[-1]
        risen = last.spread * last.process.mean(without_nan(rows, self._choice))
        return np.asarray(risen / max(last.rho, _LEAST_RHO))

    def closeness(self, rows: Rows) -> Array:
        """How like the nearest trial of this search, as the first rung sees it: 0 to 1, shape (n,)."""
        return self._layers[0].process.closeness(without_nan(rows, self._choice))

    def believe(self, rows: Rows) -> None:
        """Take the own mean at `rows` for seen, at the first rung of this search."""
        process = self._layers[0].process.believing(without_nan(rows, self._choice))
        self._layers[0] = dataclasses.replace(self._layers[0], process=process)


@dataclass(frozen=True)
class Scale:
    """Makes values of one rung comparable: the good ones spread out, the bad ones close together."""

    median: float
    width: float  # from the median to the best tenth

    @classmethod
    def of(cls, values: Array) -> Scale:
        median, high = np.quantile(values, [0.5, 0.9])
        # When most trials lie near the best, tiny differences must not become large ones.
        least = max(_LEAST_WIDTH * float(np.ptp(values)), 1e-9)
        return cls(float(median), max(float(high - median), least))

    def __call__(self, values: Array) -> Array:
        scaled = (values - self.median) / self.width
        compressed: Array = np.where(scaled < 0, -np.log1p(np.maximum(-scaled, 0.0)), scaled)
        return compressed

    def value(self, scaled: float) -> float:
        """What has this place on the scale."""
        return self.median + self.width * (scaled if scaled >= 0 else -math.expm1(-scaled))


@dataclass(frozen=True)
class _Below:
    """What the level below a rung says of the rung's trials: their values there, or predictions."""

    values: Array
    scale: Scale | None  # None: predictions, which are on a scale already

    @property
    def scaled(self) -> Array:
        return self.values if self.scale is None else self.scale(self.values)

    def first(self, count: int) -> _Below:
        """Of the first trials alone, as it was when there were no others."""
        values = self.values[:count]
        return _Below(values, None if self.scale is None else Scale.of(values))


@dataclass(frozen=True)
class _Recipes:
    """The recipes of trials, encoded when they are asked for: encoding all takes long, and few are."""

    encoding: SpaceEncoding
    trials: Sequence[Observation]

    def rows(self, places: Iterable[int]) -> Rows:
        return self.encoding.encode_all([self.trials[place].params for place in places])

    def filled(self, places: Iterable[int]) -> Array:
        """Without NaN."""
        return without_nan(self.rows(places), self.encoding.choice)


@dataclass(frozen=True)
class _Targets:
    """A rung's values as rho * below + shift + spread * normalised; the last has mean 0 and variance 1."""

    normalised: Array
    rho: float
    shift: float
    spread: float

    @classmethod
    def of(cls, values: Array, below: _Below | None) -> _Targets:
        scaled = Scale.of(values)(values)
        rho = slope(below.scaled, scaled) if below else 0.0
        rest = scaled - rho * below.scaled if below else scaled
        spread = max(float(rest.std()), 1e-3)
        return cls((rest - rest.mean()) / spread, rho, float(rest.mean()), spread)


@dataclass(frozen=True)
class _Layer:
    """One rung of a model."""

    process: GaussianProcess
    rho: float
    shift: float
    spread: float


def _layer(recipes: _Recipes, below: _Below | None, values: Array, choice: NDArray[np.bool_]) -> _Layer:
    targets = _Targets.of(values, below)
    used = telling(values, _LEARNS_FROM)
    fitted = _hyperparameters(recipes, below, values, choice)
    process = GaussianProcess(recipes.filled(used), targets.normalised[used], choice, fitted)
    return _Layer(process, targets.rho, targets.shift, targets.spread)


def slope(x: Array, y: Array) -> float:
    """Of y on x, never negative; 1 until much was seen."""
    x = x - x.mean()
    return max(float(x @ (y - y.mean()) + _BELIEF) / float(x @ x + _BELIEF), 0.0)


def _values(trials: Sequence[Observation], rung: int) -> Array:
    """Values at a rung, failures as the worst."""
    return with_failures_worst([trial.values.get(rung, -np.inf) for trial in trials])


def _hyperparameters(
    recipes: _Recipes, below: _Below | None, values: Array, choice: NDArray[np.bool_]
) -> Hyperparameters:
    """Found anew each time the number of trials has grown by half, from those that there were then."""
    count = _last_fit(len(values))
    targets = _Targets.of(values[:count], below.first(count) if below else None).normalised
    used = telling(values[:count], _FITTED_ON)
    return _fit_once(recipes.filled(used).tobytes(), targets[used].tobytes(), choice.tobytes())


@lru_cache(maxsize=64)
def _fit_once(rows: bytes, targets: bytes, choice: bytes) -> Hyperparameters:
    """`fit_hyperparameters` costs tens of milliseconds, so its results are kept."""
    kinds = np.frombuffer(choice, dtype=np.bool_)
    return fit_hyperparameters(np.frombuffer(rows).reshape(-1, len(kinds)), np.frombuffer(targets), kinds)


def _last_fit(count: int) -> int:
    size = _ENOUGH_AT_A_RUNG
    while (following := size + max(size // 2, 2)) <= count:
        size = following
    return min(size, count)


def _most_promising(encoding: SpaceEncoding, model: RungModel, rng: np.random.Generator) -> Rows:
    """The row that promises most: of even draws, then ever nearer to the best."""
    best_mean = float(model.mean_of_tried(model.rows[-1]).max())
    means = model.mean_of_tried(model.rows[0])
    good = model.rows[0][np.argsort(-means, kind="stable")[:_GOOD]]
    rows = np.vstack([encoding.sample(rng, _EVEN), encoding.neighbours(good, rng, _NEAR, 0.15)])
    for scale in (0.08, 0.04):
        best = rows[np.argsort(-_promise(model, rows, best_mean), kind="stable")[:6]]
        rows = np.vstack([best, encoding.neighbours(best, rng, _REFINED, scale)])
    best_row: Rows = rows[np.argmax(_promise(model, rows, best_mean))]
    return best_row


def _promise(model: RungModel, rows: Rows, best_mean: float) -> Array:
    """Logarithm of the expected improvement; what was as good as tried comes last.

    Without that rule a search spends its end on copies of its best trial, which crowd each other out of
    the best third at a rung.
    """
    tried = model.closeness(rows) > _TOO_CLOSE
    return _log_improvement(*model.predict(rows), best_mean) - _PENALTY * tried


def _log_improvement(mean: Array, deviation: Array, best: float) -> Array:
    """Logarithm of the expected improvement on `best`, finite where the improvement itself would be 0.

    Source: Ament et al. 2023, arXiv:2310.20708, section 4.
    """
    gain = (mean - best) / deviation
    near = np.maximum(gain, -5.0)
    inside = np.log(np.exp(-(near**2) / 2) / _ROOT_OF_TWO_PI + near * ndtr(near))
    log_density = -(gain**2) / 2 - np.log(
        _ROOT_OF_TWO_PI
    )  # scipy.stats has it too, and takes 0.4 s to import
    far = log_density - 2 * np.log(np.maximum(-gain, 5.0))  # the first term of the asymptotic series
    improvement: Array = np.log(deviation) + np.where(gain > -5.0, inside, far)
    return improvement
