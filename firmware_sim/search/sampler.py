"""What the next trial chooses: optuna's samplers, their randomness a function of seed and trial number.

A sampler's own generator would begin anew in every process and after every restart, and propose the same again.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

_SAMPLERS: dict[str, Callable[[int, int], BaseSampler]] = {
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
