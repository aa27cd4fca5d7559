"""What a user asks of a fit, whatever was observed: for tests of counts and of calcium."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from plain import plain_model

import lrposterior as lrp
from lrposterior.curvature.automatic import automatic_information
from lrposterior.curvature.structured import structured_information
from lrposterior.inference.problem import Problem


def require_answers(simulation: lrp.Simulation, posterior: lrp.Posterior, name: str, folder: Path) -> None:
    """Checks, latents, a ranking, ArviZ and a file; `name` is a parameter of what is observed, (neuron,)."""
    assert lrp.check_fit(posterior).warnings == ()
    paths = lrp.infer_latents(posterior)
    error = paths.currents - np.arctanh(simulation.rates)
    assert np.mean(error**2) < 0.5 * np.var(np.arctanh(simulation.rates))
    candidates = lrp.single_neuron_candidates(posterior.recording, power=1.0).select([0, 3])
    ranking = lrp.rank_perturbations(posterior, candidates, num_draws=50, progress=False)
    assert np.all(np.isfinite(ranking.information) & (ranking.information > 0.0))
    tree = posterior.to_arviz(20, seed=0)
    assert tree["posterior"][name].dims == ("chain", "draw", "neuron")
    posterior.save(folder / "fit.nc")
    loaded = lrp.load_posterior(folder / "fit.nc")
    assert loaded.model.observation == posterior.model.observation
    np.testing.assert_array_equal(loaded.mode[name], posterior.mode[name])


def require_structured_information(observation: Any, **options: Any) -> tuple[Problem, np.ndarray, np.ndarray]:
    """The structured information is that of automatic differentiation, with a bulk and gaps.

    Returns:
        the problem, the point (coordinate,), and the information there.
    """
    model = plain_model(rank=2, observation=observation, background=lrp.RandomBulk(gain=0.3, dimension=2), **options)
    recording = lrp.simulate_recording(model, num_neurons=6, num_trials=3, num_bins=15, seed=0).recording
    mask = np.random.default_rng(0).random(recording.activity.shape) < 0.8
    with jax.enable_x64(True):
        problem = Problem.of(model, dataclasses.replace(recording, mask=mask))
        z = np.random.default_rng(1).standard_normal(problem.space.size)
        structured, automatic = (
            np.asarray(information(problem.model, problem.space, jnp.asarray(z), problem.data))
            for information in (structured_information, automatic_information)
        )
    np.testing.assert_allclose(structured, automatic, atol=1e-10 * np.abs(automatic).max())
    return problem, z, structured


def connectivity_cover(simulation: lrp.Simulation, posterior: lrp.Posterior) -> float:
    """Share of the entries of W within their 90% intervals."""
    z = (simulation.connectivity - posterior.connectivity_mean()) / posterior.connectivity_sd()
    return float(np.mean(np.abs(z) < 1.645))


def parameter_cover(simulation: lrp.Simulation, posterior: lrp.Posterior, name: str) -> float:
    """Share of the neurons' parameters of this name within their 90% intervals, which are log-normal."""
    draws = np.log(posterior.sample_parameters(400, seed=0)[name])
    error = np.log(simulation.parameters[name]) - draws.mean(axis=0)
    return float(np.mean(np.abs(error) < 1.645 * draws.std(axis=0)))


def require_density_of_numpyro(model: lrp.LowRankModel, recording: lrp.Recording, site: str) -> None:
    """A NumPyro program has this site, and the log density of the model at a draw of its prior."""
    with jax.enable_x64(True):
        program = numpyro.handlers.seed(lrp.numpyro_model(model, recording), 0)
        trace = numpyro.handlers.trace(program).get_trace()
        settled = model.for_recording(recording)
        drawn = {name: one["value"] for name, one in trace.items() if one["type"] == "sample"}
        density, _ = numpyro.infer.util.log_density(program, (), {}, drawn)
        space, data = settled.space_for(recording), settled.data(recording)
        parameters = {block.name: drawn[block.name] for block in space.blocks}
        assert site in parameters
        assert np.isclose(density, lrp.log_density(settled, space, parameters, data))
