"""Designs and comparisons of networks that obey Dale's law, with W0 and without, against naive references."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from signed_networks import BACKGROUND, NUM_NEURONS, simulated

import lrposterior as lrp
from lrposterior.distribution import NormalDistribution

BACKGROUNDS = {"low rank": None, "background": BACKGROUND}
TRIALS_PER_PATTERN = 6


@functools.cache
def fitted(background, strength=1.0, noise=0.5):
    return lrp.fit(*simulated(20, strength, noise, background=BACKGROUNDS[background]), seed=0, progress=False)


@pytest.fixture(params=BACKGROUNDS)
def posterior(request):
    return fitted(request.param)


def information(posterior, recording):
    """J^T J over the variance of the noise, of the rates of noise-free trials, by automatic differentiation."""
    model, space, mode = posterior.model, posterior.space, jnp.asarray(posterior.mode_coordinates)
    data = model.data(recording)

    def rates(z):
        return model.rates(space.unwhiten(z), data) / jnp.exp(space.unwhiten(mode)["log_noise_scale"])

    slopes = np.asarray(jax.jacfwd(rates)(mode))[..., : space.num_dynamics].reshape(-1, space.num_dynamics)
    return slopes.T @ slopes


@pytest.mark.slow
def test_a_gain_is_that_of_the_jacobian_of_the_trials(posterior):
    """1/2 [log det(1 + F + F_p) - log det(1 + F)], with one trial under the conditions of the recording."""
    recording = posterior.recording
    candidates = lrp.single_neuron_candidates(recording, power=0.5).select([0, NUM_NEURONS - 1])
    design = lrp.design_perturbations(
        posterior,
        2,
        power=0.5,
        candidates=candidates,
        random_fraction=0,
        trials_per_pattern=TRIALS_PER_PATTERN,
        inputs=recording.inputs[:2],
        seed=0,
    )
    with jax.enable_x64(True):
        known = np.eye(posterior.space.num_dynamics) + information(posterior, recording)
        expected = []
        for pattern in design.candidates.patterns:
            stimulation = np.broadcast_to(
                design.candidates.time_course[:, None] * pattern, (2, recording.num_bins, NUM_NEURONS)
            )
            trials = lrp.Recording(
                np.zeros(stimulation.shape),
                recording.dt,
                inputs=recording.inputs[:2],
                stimulation=stimulation,
                cell_types=recording.cell_types,
            )
            after = known + TRIALS_PER_PATTERN / 2 * information(posterior, trials)
            expected.append(0.5 * (np.linalg.slogdet(after)[1] - np.linalg.slogdet(known)[1]))
            known = after
    np.testing.assert_allclose(design.gains, expected, rtol=1e-6)


@pytest.mark.slow
def test_what_trials_say_about_their_like_is_a_part_of_what_they_say(posterior):
    """What trials say about themselves is at most what they say about the network, and more than nothing."""
    candidates = lrp.single_neuron_candidates(posterior.recording, power=0.5).select([0])
    of_network, of_goal = (
        lrp.design_perturbations(
            posterior, 1, power=0.5, candidates=candidates, random_fraction=0, goal=goal, seed=0
        ).gains[0]
        for goal in (None, candidates)
    )
    assert 0.0 < of_goal < of_network


def test_a_network_does_not_differ_from_itself(posterior):
    found = lrp.compare_posteriors(posterior, posterior, seed=0)
    assert found.directions.total_p > 0.5
    assert np.min(found.incoming_p) > 0.05
    assert np.min(found.outgoing_p) > 0.05


def test_stronger_inhibition_is_seen_in_what_the_inhibitory_neurons_send():
    found = lrp.compare_posteriors(*(fitted("low rank", strength, 0.1) for strength in (1.0, 3.0)), seed=0)
    assert found.directions.total_p < 0.01
    assert np.max(found.outgoing_p[4:]) < 0.01


def test_a_change_is_that_of_dense_draws(posterior):
    """U^T (W_after - W_before) V and its spread, with a W0 that changed as well."""
    normal = posterior.distribution
    moved = NormalDistribution(normal.location + 0.3, 0.5 * normal.scale)
    after = dataclasses.replace(posterior, distribution=moved)
    found = lrp.compare_posteriors(posterior, after, num_draws=200, seed=4)
    U, V = found.write_patterns, found.read_patterns
    seen = [
        U.T @ each.sample_connectivity(200, seed=4 + place).to_dense() @ V
        for place, each in enumerate((posterior, after))
    ]
    np.testing.assert_allclose(found.change, seen[1].mean(axis=0) - seen[0].mean(axis=0), rtol=1e-9)
    spread = np.sqrt(seen[0].var(axis=0, ddof=1) + seen[1].var(axis=0, ddof=1))
    np.testing.assert_allclose(found.change_sd, spread, rtol=1e-9)
