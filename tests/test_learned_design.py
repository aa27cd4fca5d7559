"""Designs where the low-rank part was learned: K reads what the recording visited, whatever the stimulations visit."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from any_size_cases import CORRELATED, MODELS, structured_fit

import lrposterior as lrp
from lrposterior.design.dense import DenseBeliefs
from lrposterior.design.structured import StructuredBeliefs
from lrposterior.design.trials import make_setting
from lrposterior.perturbation.experiment import make_experiment

CASES = {"independent": MODELS["bulk"], "correlated": dataclasses.replace(MODELS["bulk"], priors=CORRELATED)}


@functools.cache
def case(name, learned=True):
    posterior = structured_fit(CASES[name])
    background = dataclasses.replace(posterior.model.background, learned=learned)
    posterior = dataclasses.replace(posterior, model=dataclasses.replace(posterior.model, background=background))
    candidates = lrp.ensemble_candidates(posterior.recording, num_candidates=4, size=3, power=1.0, onset=0.2, seed=0)
    experiment = make_experiment(posterior, candidates, posterior.recording.inputs[:2], None)
    return posterior, candidates, make_setting(posterior, experiment, candidates.patterns, 1500)


def by_definition(setting, trials):
    """J^T J / noise variance of the observed activity of the projected network, by automatic differentiation."""
    model, space, Q = setting.model, dataclasses.replace(setting.space, read=None), setting.space.read
    data, start = model.data(trials), jnp.asarray(setting.z)

    def mean(dynamics):
        parameters = space.unwhiten(jnp.concatenate([dynamics, start[space.num_dynamics :]]))
        parameters["K"] = Q @ (Q.T @ parameters["K"])
        return model.structure.observation.mean(model.structure.currents(parameters, data), model.nonlinearity)

    jacobian = np.asarray(jax.jacfwd(mean)(start[: space.num_dynamics]))
    noise = np.exp(space.unwhiten(setting.z)["log_noise_scale"])
    flat = (jacobian / noise[:, None])[np.asarray(data.mask)]
    return flat.T @ flat


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_information_is_that_of_the_projected_network(name):
    posterior, candidates, setting = case(name)
    assert setting.space["A"].shape[1] > posterior.subspace.shape[1] == setting.space.read.shape[1]
    beliefs = DenseBeliefs.of(setting, setting.num_conditions)
    with jax.enable_x64(True):
        known = by_definition(setting, setting.recording)
        added = by_definition(setting, setting.trials(candidates.patterns[0]))
    np.testing.assert_allclose(beliefs.precision - np.eye(len(known)), known, atol=1e-7 * np.abs(known).max())
    np.testing.assert_allclose(beliefs.information(candidates.patterns[0]), added, atol=1e-7 * np.abs(added).max())


@pytest.mark.parametrize("name", CASES)
def test_no_trial_teaches_about_K_outside_what_was_visited(name):
    _, candidates, setting = case(name)
    space, Q = setting.space, setting.space.read
    outside = np.eye(len(Q)) - Q @ Q.T
    change = np.zeros((len(Q), space.num_dynamics))
    change[:, space.slices["K"]] = np.kron(outside, np.eye(2)[:1])
    reached = DenseBeliefs.of(setting, 10).after(candidates.patterns[0])
    np.testing.assert_allclose(change @ reached.precision, change, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_gains_of_both_forms_agree(name):
    _, candidates, setting = case(name)
    for goal in (None, candidates.patterns[:2]):
        dense, structured = DenseBeliefs.of(setting, 4), StructuredBeliefs.of(setting, 4)
        if goal is not None:
            dense, structured = dense.towards(goal), structured.towards(goal)
        for _ in range(2):
            gains = dense.gains(candidates.patterns)
            np.testing.assert_allclose(structured.gains(candidates.patterns), gains, rtol=0.03)
            dense, structured = (each.after(candidates.patterns[3]) for each in (dense, structured))
    free = DenseBeliefs.of(case(name, learned=False)[2], 4).gains(candidates.patterns)
    learned = DenseBeliefs.of(setting, 4).gains(candidates.patterns)
    assert np.abs(learned / free - 1.0).max() > 0.05


@pytest.mark.parametrize("name", CASES)
def test_what_means_nothing_has_no_information(name):
    """A on patterns that K does not read is no matter of trading."""
    _, candidates, setting = case(name)
    beliefs = StructuredBeliefs.of(setting, 4)
    vertical = beliefs.information(candidates.patterns[0]).vertical
    whitened = (vertical / beliefs.coordinates.deviations[:, None])[beliefs.coordinates.places]
    whitened /= np.linalg.norm(whitened, axis=0)
    added = DenseBeliefs.of(setting, 4).information(candidates.patterns[0])
    assert np.abs(added @ whitened).max() < 1e-9 * np.abs(added).max()


@pytest.mark.slow
def test_front_door():
    posterior, candidates, _ = case("independent")
    design = lrp.design_perturbations(posterior, 2, candidates=candidates, power=1.0, seed=0)
    assert np.all(design.gains > 0.0)
