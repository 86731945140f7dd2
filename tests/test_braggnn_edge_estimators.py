import numpy as np
import pytest

from braggnn_edge.core.errors import UserError
from braggnn_edge.evaluation.estimators import ESTIMATORS


def test_the_registry_has_exactly_the_names_of_the_report():
    assert list(ESTIMATORS) == ["constant", "maximum", "centre_of_mass", "centre_of_mass_squared"]


def test_known_patches():
    patches = np.zeros((3, 5, 7))
    patches[0, 1, 5] = 9.0  # one pixel: offset (1 - 2, 5 - 3)
    patches[1, 2, 3] = 1.0
    patches[1, 2, 4] = 3.0
    patches[2] = 10.0  # a background that must not count
    patches[2, 4, 3] = 12.0
    patches[2, 0, 3] = 14.0
    expected = {
        "constant": [[0, 0], [0, 0], [0, 0]],
        "maximum": [[-1, 2], [0, 1], [-2, 0]],
        "centre_of_mass": [[-1, 2], [0, 0.75], [(2 * 2 - 4 * 2) / 6, 0]],
        "centre_of_mass_squared": [[-1, 2], [0, 0.9], [(4 * 2 - 16 * 2) / 20, 0]],
    }
    for name, estimator in ESTIMATORS.items():
        # Quotients of small integers, a few roundings.
        np.testing.assert_allclose(estimator(patches), expected[name], rtol=0, atol=1e-15, err_msg=name)


def test_the_first_of_equal_maxima_in_row_major_order():
    patches = np.zeros((1, 3, 3), dtype=np.uint16)
    patches[0, 0, 2] = patches[0, 1, 0] = patches[0, 2, 2] = 7
    assert ESTIMATORS["maximum"](patches).tolist() == [[-1.0, 1.0]]


@pytest.mark.parametrize("value", [0, 1, 65535])
def test_an_all_equal_patch_has_no_centroid(value):
    patches = np.full((2, 11, 11), value, dtype=np.uint16)
    for name in ("centre_of_mass", "centre_of_mass_squared"):
        assert not ESTIMATORS[name](patches).any()


def test_integers_do_not_overflow_and_scale_does_not_matter():
    rng = np.random.default_rng(0)
    patches = rng.integers(0, 65536, (20, 11, 11), dtype=np.uint16)
    for name, estimator in ESTIMATORS.items():
        reference = estimator(patches.astype(np.float64))
        assert np.array_equal(estimator(patches), reference)
        # Powers of two scale exactly, down to where the squares would be subnormal.
        assert np.array_equal(estimator(patches * 2.0**-600), reference), name


def test_empty_input_and_bad_input():
    for estimator in ESTIMATORS.values():
        assert estimator(np.zeros((0, 5, 5))).shape == (0, 2)
        with pytest.raises(UserError, match=r"expected \(n, height, width\)"):
            estimator(np.zeros((5, 5)))
        bad = np.zeros((3, 5, 5))
        bad[1, 2, 2] = np.nan
        with pytest.raises(UserError, match="patch 1 "):
            estimator(bad)
