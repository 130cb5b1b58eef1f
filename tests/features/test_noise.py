"""GIVEN a null's finite values THEN its percentiles are numpy's, to the last bit, without numpy's masked arrays."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as some
from hypothesis.extra.numpy import array_shapes, arrays

from wbtui.features.noise import percentiles

FINITE = some.floats(-1e300, 1e300, allow_nan=False, allow_infinity=False)
PERCENTS = some.lists(some.one_of(some.sampled_from([0, 50, 95, 99, 100]), some.floats(0, 100)), min_size=1, max_size=4)


@given(arrays(np.float64, array_shapes(max_dims=2, max_side=9), elements=FINITE), PERCENTS)
def test_percentiles_are_numpys(values: np.ndarray, percents: list[float]) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        assert np.array_equal(
            percentiles(values, tuple(percents)), np.percentile(values, percents, axis=0), equal_nan=True
        )


def test_a_table_is_opened_without_masked_arrays() -> None:
    code = (
        "import sys, numpy as np; from wbtui.features.noise import percentiles; "
        "percentiles(np.arange(9.0), (50, 99)); sys.exit('numpy.ma' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
