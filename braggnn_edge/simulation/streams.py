"""Random streams of a simulated scan: each is keyed by the seed and by what it is for."""

import numpy as np

#: What streams are for.
REFLECTIONS, PANEL, SPOTS, NOISE, GRAINS = range(5)


def stream(seed: int, *key: int) -> np.random.Generator:
    """The stream of a key: one of the numbers above and, where there are several, which one."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
