"""Embedded inputs: against loops over bins and pairs, and a network whose drive is a product of two inputs."""

import dataclasses

import numpy as np
import pytest
from plain import plain_model

import lrposterior as lrp
from lrposterior.held_out import held_out_density


def recording(num_inputs: int = 3) -> lrp.Recording:
    random = np.random.default_rng(0)
    return lrp.Recording(random.normal(size=(4, 7, 2)), 0.02, inputs=random.normal(size=(4, 7, num_inputs)))


def test_lags_are_the_inputs_of_bins_before_and_zero_before_the_trial():
    given = recording()
    features = lrp.embed_inputs(given, lrp.LaggedInputs(lags=2)).inputs
    assert features.shape == (4, 7, 9)
    for trial, time, lag in np.ndindex(4, 7, 3):
        before = given.inputs[trial, time - lag] if time >= lag else np.zeros(3)
        np.testing.assert_array_equal(features[trial, time, 3 * lag : 3 * lag + 3], before)


def test_more_lags_than_bins_are_zero():
    features = lrp.embed_inputs(recording(), lrp.LaggedInputs(lags=9)).inputs
    assert not features[:, :, -3:].any()


def test_a_polynomial_has_every_square_and_every_product_once():
    given = recording()
    features = lrp.embed_inputs(given, lrp.PolynomialInputs()).inputs
    for trial, time in np.ndindex(4, 7):
        u = given.inputs[trial, time]
        expected = [*u, *(u[j] * u[k] for j in range(3) for k in range(j, 3))]
        np.testing.assert_allclose(features[trial, time], expected)


def test_a_random_layer_is_rectified_and_the_same_map_for_every_bin():
    given, embedding = recording(), lrp.RandomEmbedding(5, seed=1)
    features = lrp.embed_inputs(given, embedding).inputs
    projection = np.random.default_rng(1).normal(size=(3, 5)) / np.sqrt(3)
    for trial, time in np.ndindex(4, 7):
        expected = [max(0.0, float(given.inputs[trial, time] @ column)) for column in projection.T]
        np.testing.assert_allclose(features[trial, time], expected)
    assert not np.array_equal(lrp.embed_inputs(given, lrp.RandomEmbedding(5, seed=2)).inputs, features)


def test_features_of_a_random_layer_have_half_the_mean_square_of_the_inputs():
    """E max(0, p . u)² = |u|² / 2 for Normal p; the mean square of n features is known to sqrt(5 / n)."""
    given = recording()
    features = lrp.embed_inputs(given, lrp.RandomEmbedding(20_000, seed=0)).inputs
    expected = 0.5 * np.mean(given.inputs**2, axis=2)
    np.testing.assert_allclose(np.mean(features**2, axis=2), expected, rtol=4.0 * np.sqrt(5.0 / 20_000))


@pytest.mark.parametrize("embedding", [lrp.RandomEmbedding(4, seed=0), lrp.LaggedInputs(1), lrp.PolynomialInputs()])
def test_all_else_of_the_recording_stays_and_trials_may_be_selected_before_or_after(embedding):
    given = dataclasses.replace(recording(), cell_types=["E", "I"], trial_labels=list("abcd"))
    embedded = lrp.embed_inputs(given, embedding)
    for name in ("activity", "mask", "cell_types", "trial_labels", "dt"):
        np.testing.assert_array_equal(getattr(embedded, name), getattr(given, name))
    before = lrp.embed_inputs(given.select(trials=[2, 0]), embedding)
    np.testing.assert_allclose(before.inputs, embedded.select(trials=[2, 0]).inputs)


@pytest.mark.slow
def test_a_drive_by_a_product_of_inputs_is_predicted_better_with_products_among_the_features():
    """Rank 1, 8 neurons whose drive is u0 u1: linear inputs predict held-out trials worse by far."""
    model, random = plain_model(rank=1), np.random.default_rng(2)
    factor, inputs = random.normal(size=(8, 1)), random.normal(size=(12, 1, 2)) * np.ones((1, 40, 1))
    product = inputs[:, :, :1] * inputs[:, :, 1:]
    driven = lrp.simulate_recording(model, M=factor, K=2.0 * factor, inputs=product, noise_scale=0.1, seed=1).recording
    seen = dataclasses.replace(driven, inputs=inputs)
    densities = {}
    for name, given in (("linear", seen), ("polynomial", lrp.embed_inputs(seen, lrp.PolynomialInputs()))):
        training, held_out = given.split(0.25, seed=0)
        posterior = lrp.fit(model, training, seed=0, progress=False)
        densities[name] = held_out_density(posterior, held_out, num_draws=100, seed=0)
    assert np.all(densities["polynomial"] > densities["linear"] + 100.0)


def test_bad_arguments_are_named():
    for call, words in (
        (lambda: lrp.RandomEmbedding(0, seed=0), "embedding.width: expected an integer >= 1, got 0"),
        (lambda: lrp.LaggedInputs(0), "embedding.lags: expected an integer >= 1"),
        (
            lambda: lrp.embed_inputs(recording(), "lags"),
            "embedding: expected RandomEmbedding, LearnedEmbedding,",
        ),  # pyright: ignore[reportArgumentType]
        (lambda: lrp.embed_inputs(recording(0), lrp.LaggedInputs(1)), "recording: expected at least one input"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
