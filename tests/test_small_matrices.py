"""Small equations by formula, against NumPy."""

import jax
import numpy as np
import pytest

from lrposterior.small_matrices import LARGEST_BY_FORMULA, solve_and_log_determinant


@pytest.mark.parametrize("columns", [(), (2,)])
@pytest.mark.parametrize("size", range(1, LARGEST_BY_FORMULA + 2))
def test_solution_and_determinant_are_those_of_numpy(size, columns):
    random = np.random.default_rng(size)
    # 1 + J P, neither symmetric nor with positive minors.
    roots = random.standard_normal((2, size, size))
    matrix = np.eye(size) + (roots[0] @ roots[0].T) @ (roots[1] @ roots[1].T)
    right_side = random.standard_normal((size, *columns))
    with jax.enable_x64(True):
        solution, log_determinant = solve_and_log_determinant(jax.numpy.asarray(matrix), right_side)
    np.testing.assert_allclose(solution, np.linalg.solve(matrix, right_side), rtol=1e-11)
    np.testing.assert_allclose(log_determinant, np.linalg.slogdet(matrix)[1], rtol=1e-12)
