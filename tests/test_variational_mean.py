"""The mean of the Laplace posterior lies where the log density is stationary on average."""

import dataclasses

import numpy as np
import pytest
import single_neuron
from plain import plain_model
from scipy.stats import chi2, kstest

import lrposterior as lrp
from lrposterior.distribution import NormalDistribution
from lrposterior.inference.problem import Problem
from lrposterior.inference.variational_mean import standard_draws, variational_shift
from lrposterior.precision import double_precision
from lrposterior.quasi_newton import descend

GRID, LOG_SCALES = np.linspace(-4.0, 4.0, 400), np.log(0.3) + np.linspace(-1.0, 1.0, 25)


@dataclasses.dataclass(frozen=True)
class Cubic:
    """V(z) = |z|² / 2 s² + c . z³, for which E[V'(m + s xi)] = m / s² + 3 c (m² + s²)."""

    sd: float
    skew: np.ndarray
    num_pairs: int = 4000

    @property
    def of_observed(self):
        return np.ones(len(self.skew), dtype=bool)

    def expectation(self, points):
        values = 0.5 * np.sum((points / self.sd) ** 2, axis=1) + points**3 @ self.skew
        slopes = points / self.sd**2 + 3.0 * self.skew * points**2
        return float(np.mean(values)), slopes.mean(axis=0)


def test_shift_of_a_cubic_density_is_the_closed_form():
    problem = Cubic(0.5, np.array([0.8, -1.0, 0.0]))
    shift, gained = variational_shift(problem, NormalDistribution(np.zeros(3), 0.5 * np.eye(3)))
    a, b, c = 3.0 * problem.skew[:2], 1.0 / 0.25, 3.0 * problem.skew[:2] * 0.25
    expected = np.append((-b + np.sqrt(b**2 - 4.0 * a * c)) / (2.0 * a), 0.0)
    # Of an average of 4000 squares; and the descent ends 0.06 standard deviations away.
    np.testing.assert_allclose(shift, expected, rtol=0.06, atol=0.005)
    lower = 0.5 * shift[:2] ** 2 * b + problem.skew[:2] * (shift[:2] ** 3 + 3.0 * shift[:2] * 0.25)
    assert gained == pytest.approx(-lower.sum(), rel=0.1)


def test_a_shift_of_more_than_half_a_standard_deviation_is_refused():
    far = Cubic(0.5, np.array([1.3, 1.3, 1.3]))
    normal = NormalDistribution(np.zeros(3), 0.5 * np.eye(3))
    shift, gained = variational_shift(far, normal)
    assert (gained, np.abs(shift).max()) == (0.0, 0.0)
    near = Cubic(0.5, np.array([0.9, 0.9, 0.9]))
    shift, gained = variational_shift(near, normal)
    assert 0.2 < np.abs(shift / 0.5).max() < 0.5
    assert gained > 0.0


def test_mean_stays_where_the_expectation_does_not_exist():
    start = np.ones(2)
    point, gained = descend(lambda _: (np.inf, np.zeros(2)), lambda slope: slope, start, tolerance=0.0, max_steps=1)
    np.testing.assert_array_equal(point, start)
    assert gained == 0.0


def test_draws_are_standard_normal_in_antithetic_orthogonal_pairs():
    draws = standard_draws(40, 100, seed=1)
    np.testing.assert_array_equal(draws[100:], -draws[:100])
    for block in (draws[:40], draws[40:80], draws[80:100]):
        gram = block @ block.T
        np.testing.assert_allclose(gram, np.diag(np.diag(gram)), atol=1e-10)
    assert kstest(np.sum(draws[:100] ** 2, axis=1), chi2(40).cdf).pvalue > 1e-3


@double_precision
def test_slope_vanishes_on_average_over_other_draws():
    """Over 300 independent pairs, where at the mode it does not."""
    model = plain_model(1)
    truth = lrp.simulate_recording(model, num_neurons=6, num_trials=6, num_bins=30, noise_scale=0.2, seed=0)
    slopes = {}
    for mean in ("mode", "variational"):
        posterior = lrp.fit(model, truth.recording, lrp.Laplace(mean=mean), seed=0, progress=False)
        normal = posterior.distribution
        noise = np.random.default_rng(1).standard_normal((300, normal.scale.shape[1]))
        points = normal.location + np.concatenate([noise, -noise]) @ normal.scale.T
        slope = Problem.of(posterior.model, truth.recording).expectation(points)[1]
        slopes[mean] = np.linalg.norm(normal.scale.T @ slope)
    assert slopes["mode"] > 0.5
    assert slopes["variational"] < 0.4 * slopes["mode"]


@pytest.mark.parametrize(("w", "seed"), [(0.8, 0), (0.8, 1), (0.4, 0)])
def test_mean_of_one_neuron_is_that_of_brute_force(w, seed):
    recording = single_neuron.record(single_neuron.model(), w, num_trials=3, num_bins=25, noise_scale=0.3, seed=seed)
    density = single_neuron.integrate(single_neuron.model(), recording, GRID, LOG_SCALES)[0]
    density /= density.sum()
    exact = GRID @ density
    sd = np.sqrt((GRID - exact) ** 2 @ density)
    at_mode, shifted = (
        lrp.fit(single_neuron.model(), recording, lrp.Laplace(mean=mean), seed=0, progress=False)
        .connectivity_mean()
        .item()
        for mean in ("mode", "variational")
    )
    assert abs(at_mode - exact) > 0.3 * sd
    assert abs(shifted - exact) < 0.15 * sd
