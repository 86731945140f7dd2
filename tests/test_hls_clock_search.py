"""Which clock is asked of place and route next."""

from hls.tools.clock_search import Tried, following, met_mhz


def _searched(reach, first=80.0, seeds=2):
    """All runs of a search in which ``reach`` says what is reached, from the clock asked for and the seed."""
    tried = []
    while (step := following(tried, first, seeds)) is not None:
        assert len(tried) < 30
        tried.append(Tried(step[0], reach(*step), step[1]))
    return tried


def test_the_clock_is_raised_until_every_seed_misses_it():
    tried = _searched(lambda asked, seed: 95.0 if seed == 1 else 101.0)
    # 1.05 times 95 is missed by the first seed and met by the second; 1.05 times 101 by none.
    assert [(run.asked_mhz, run.seed, run.met) for run in tried] == [
        (80.0, 1, True), (99.8, 1, False), (99.8, 2, True), (106.1, 1, False), (106.1, 2, False),
    ]  # fmt: skip
    assert met_mhz(tried) == 99.8


def test_a_first_clock_out_of_reach_is_lowered_to_the_first_that_is_met():
    tried = _searched(lambda asked, seed: 70.0 + seed if asked > 72 else asked - 1 if asked > 70 else 71.0)
    # 0.98 times 72, the better seed's, is missed; 0.98 times what that reached is met.
    assert [(run.asked_mhz, run.seed) for run in tried] == [(80.0, 1), (80.0, 2), (70.6, 1), (70.6, 2), (68.2, 1)]
    assert met_mhz(tried) == 68.2


def test_what_is_met_exactly_is_met():
    assert met_mhz(_searched(lambda asked, seed: 80.0)) == 80.0


def test_nothing_tried_and_nothing_met():
    assert following([], 80.0, 3) == (80.0, 1)
    assert met_mhz([]) is None
    assert met_mhz([Tried(80.0, 79.9, 1)]) is None
