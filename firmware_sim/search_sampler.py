"""What the next trial chooses: a sampler of our own and optuna's, their randomness a function of seed and trial number.

A sampler's own generator would begin anew in every process and after every restart, and propose the same again.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.search_space import intersection_search_space
from optuna.trial import FrozenTrial, TrialState

#: Share of a circuit's parameters that the sampler "front" changes, and by how much of their range (one sigma).
_CHANGED, _STEP = 0.3, 0.25


class FrontSampler(BaseSampler):
    """Changes some parameters of a circuit of the front in error and tables, picked evenly over the tables' logarithm.

    Circuits worse than the squared centroid (their constraint broken) are no part of it while others are. The first
    ``startup`` trials are random. A steady-state evolution with the whole front as its population.
    """

    def __init__(self, seed: int, startup: int) -> None:
        self._random, self._draw, self._startup = RandomSampler(seed), np.random.default_rng(seed), startup

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that all finished trials have."""
        done = _finished(study)
        space = intersection_search_space(done) if len(done) >= self._startup else {}
        return {name: space[name] for name in sorted(space) if not space[name].single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if not search_space:
            return {}
        parent = self._parent(_finished(study)).params
        names = list(search_space)
        changed = self._draw.random(len(names)) < _CHANGED
        changed[self._draw.integers(len(names))] = True
        return {
            name: self._near(search_space[name], parent[name]) if change else parent[name]
            for name, change in zip(names, changed, strict=True)
        }

    def _parent(self, done: list[FrozenTrial]) -> FrozenTrial:
        useful = [t for t in done if all(value <= 0 for value in t.constraints.values())] or done
        line: list[FrozenTrial] = []
        for found in sorted(useful, key=lambda t: (t.values[1], t.values[0])):
            if not line or found.values[0] < line[-1].values[0]:
                line.append(found)
        places = np.log1p([t.values[1] for t in line])
        wanted = self._draw.uniform(places.min() - _STEP, places.max() + _STEP)
        return line[int(np.abs(places - wanted).argmin())]

    def _near(self, distribution: BaseDistribution, value: Any) -> Any:
        """Another choice; or a number nearby, on the scale it is drawn on."""
        if isinstance(distribution, CategoricalDistribution):
            others = [choice for choice in distribution.choices if choice != value]
            return others[self._draw.integers(len(others))]
        if not isinstance(distribution, IntDistribution | FloatDistribution):
            raise TypeError(f"a parameter drawn from {distribution}; expected a choice or a range of numbers")
        low, high = distribution.low, distribution.high
        scale, back = (np.log, np.exp) if distribution.log else (float, float)
        moved = scale(value) + _STEP * (scale(high) - scale(low)) * self._draw.standard_normal()
        found = float(back(min(max(moved, scale(low)), scale(high))))
        if isinstance(distribution, FloatDistribution):
            return found
        whole = round(found)
        if whole == value:
            whole += 1 if found > value else -1
        return min(max(whole, int(low)), int(high))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._random.sample_independent(study, trial, param_name, param_distribution)


def _finished(study: Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


_SAMPLERS: dict[str, Callable[[int, int], BaseSampler]] = {
    "front": FrontSampler,
    "tpe": lambda seed, startup: TPESampler(seed=seed, n_startup_trials=startup),
    "nsga2": lambda seed, startup: NSGAIISampler(seed=seed, population_size=startup),
    "random": lambda seed, _: RandomSampler(seed=seed),
}


class NumberedSampler(BaseSampler):
    """A sampler made anew for each trial from (seed, number of the trial); all it knows is in the storage.

    With "random" a trial's choice depends on these two alone; with the others also on the trials it finds finished.
    """

    def __init__(self, name: str, seed: int, startup: int) -> None:
        self._make, self._seed, self._startup = _SAMPLERS[name], seed, startup
        self._inner: BaseSampler = self._make(seed, startup)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """The first call for a trial."""
        seed = int(np.random.SeedSequence((self._seed, trial.number)).generate_state(1)[0])
        self._inner = self._make(seed, self._startup)
        self._inner.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._inner.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        self._inner.after_trial(study, trial, state, values)
