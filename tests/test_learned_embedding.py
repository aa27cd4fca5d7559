"""A learned layer of the inputs: what it explains, where it starts, its slope, what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain import plain_model

import lrposterior as lrp
from lrposterior.input_embedding import rectified
from lrposterior.matching.simulated_trials import PROJECTION
from lrposterior.matching.training import Trials, Weights, loss_and_slope
from lrposterior.parameters import Block, ParameterSpace

NUM_TRIALS, WIDTH = 60, 6
MODEL = plain_model(1)
compiled = jax.jit(loss_and_slope, static_argnums=(0, 1))


def driven_by_a_layer(seed: int = 0) -> lrp.Recording:
    """Rank 1, 8 neurons driven by three rectified projections of three inputs, which are other ones in every trial."""
    random = np.random.default_rng(seed)
    inputs = np.repeat(random.standard_normal((NUM_TRIALS, 5, 3)), 8, axis=1)
    features, factor = np.maximum(inputs @ random.standard_normal((3, 3)), 0.0), random.standard_normal((8, 1))
    truth = lrp.simulate_recording(MODEL, M=factor, K=1.5 * factor, inputs=features, noise_scale=0.1, seed=seed + 1)
    return dataclasses.replace(truth.recording, inputs=inputs)


def method(num_epochs: int, learning_rate: float, num_trials: int) -> lrp.Match:
    """Matching of every trial for itself."""
    return lrp.Match(
        conditions=[str(trial) for trial in range(num_trials)], warm_up=num_epochs - 1, ramp=0, num_epochs=num_epochs,
        validation=0.0, learning_rate=learning_rate, batch_size=15,
    )  # fmt: skip


@pytest.mark.slow
def test_it_explains_held_out_trials_that_a_random_layer_of_its_width_does_not():
    """A fit of the likelihood afterwards, which knows nothing of where the features come from."""
    training, held_out = driven_by_a_layer().split(0.25, seed=0)
    learned = lrp.learn_embedding(
        MODEL, training, WIDTH, method=method(200, 0.03, training.num_trials), seed=0, progress=False
    )
    missed = {}
    for name, embedding in (("none", None), ("random", lrp.RandomEmbedding(WIDTH, seed=0)), ("learned", learned)):
        given = [one if embedding is None else lrp.embed_inputs(one, embedding) for one in (training, held_out)]
        posterior = lrp.fit(MODEL, given[0], seed=0, progress=False)
        rates = posterior.predict_rates(given[1].inputs, num_draws=20, seed=0).mean(axis=0)
        missed[name] = np.sum((rates - held_out.activity) ** 2) / held_out.activity.var() / held_out.activity.size
    assert missed["learned"] < 0.5 * missed["random"]
    assert missed["learned"] < 0.5 * missed["none"]


def test_it_starts_from_the_random_layer_of_its_seed_and_features_keep_its_size():
    recording = driven_by_a_layer()
    for seed in (0, 1):
        found = lrp.learn_embedding(
            MODEL, recording, WIDTH, method=method(1, 1e-9, NUM_TRIALS), seed=seed, progress=False
        ).projection
        start = np.random.default_rng(seed).standard_normal((3, WIDTH))
        np.testing.assert_allclose(found, np.sqrt(3.0) * start / np.linalg.norm(start, axis=0), rtol=1e-5)


def test_the_same_seed_learns_the_same_layer():
    recording = driven_by_a_layer()
    first, again, other = (
        lrp.learn_embedding(
            MODEL, recording, WIDTH, method=method(4, 0.03, NUM_TRIALS), seed=seed, progress=False
        ).projection
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


@pytest.mark.usefixtures("strict_jax")
def test_its_slope_is_that_of_finite_differences():
    """Of the losses of neurons and weights, with the noise held."""
    random, recording = np.random.default_rng(0), driven_by_a_layer().select(trials=range(6))
    features = lrp.embed_inputs(recording, lrp.RandomEmbedding(WIDTH, seed=0))
    settled = MODEL.for_recording(features)
    layer = Block(PROJECTION, (3, WIDTH), 0.0, 1.0)
    space = ParameterSpace((*settled.space_for(features).blocks, layer))
    trials = Trials.of(settled, recording, 0.04, np.eye(2)[np.arange(6) % 2], None)
    weights = Weights("euclidean", 0.5, weight_penalty=1e-2, activity_penalty=0.0)

    def losses(z):
        share, chosen = jnp.asarray(0.0), jnp.arange(6)
        found, slope = compiled(
            settled.structure, weights, space, trials, jnp.asarray(z), share, chosen, jax.random.key(0)
        )
        return float(found.neuron + found.penalty), np.asarray(slope)

    z, step = random.standard_normal(space.size), 1e-5
    slope = losses(z)[1]
    assert np.any(slope[space.slices[PROJECTION]])
    for at in range(*space.slices[PROJECTION].indices(space.size)):
        along = step * (np.arange(space.size) == at)
        expected = (losses(z + along)[0] - losses(z - along)[0]) / (2.0 * step)
        np.testing.assert_allclose(slope[at], expected, rtol=1e-5, atol=1e-8)


def test_a_given_layer_is_an_embedding_that_does_not_change():
    recording, random = driven_by_a_layer(), lrp.RandomEmbedding(WIDTH, seed=3)
    given = lrp.LearnedEmbedding(np.random.default_rng(3).standard_normal((3, WIDTH)))
    np.testing.assert_array_equal(lrp.embed_inputs(recording, given).inputs, lrp.embed_inputs(recording, random).inputs)
    np.testing.assert_allclose(
        rectified(jnp.asarray(recording.inputs), jnp.asarray(given.projection)),
        lrp.embed_inputs(recording, given).inputs,
        rtol=1e-6,
        atol=1e-6,
    )
    with pytest.raises(ValueError, match="read-only"):
        given.projection[0, 0] = 1.0


def test_bad_arguments_are_named():
    recording = driven_by_a_layer()
    learned = lrp.LearnedEmbedding(np.ones((2, WIDTH)))
    without = dataclasses.replace(recording, inputs=None)

    def learn(given: lrp.Recording, width: int = WIDTH, **options):
        return lrp.learn_embedding(MODEL, given, width, seed=0, progress=False, **options)

    for call, words in (
        (lambda: lrp.embed_inputs(recording, learned), "recording: expected the 2 inputs of the embedding, got 3"),
        (lambda: lrp.LearnedEmbedding(np.ones(3)), "embedding.projection: expected an array of real numbers with axes"),
        (lambda: learn(recording, 0), "embedding.width: expected an integer >= 1, got 0"),
        (lambda: learn(without), "recording: expected at least one input"),
        (lambda: learn(recording, method=lrp.Laplace()), "method: expected Match, got Laplace"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
