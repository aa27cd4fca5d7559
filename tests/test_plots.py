"""Figures: they show the numbers that were computed, with units, and without a word over another."""

import dataclasses
import functools
import itertools
import sys
from collections.abc import Callable

import matplotlib
import numpy as np
import pytest
from handmade import make_posterior, make_rank_selection
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text
from plain import plain_model
from small_fit import small_fit

import lrposterior as lrp
from lrposterior import plots
from lrposterior.calibration import SimulatedTruth
from lrposterior.degeneracy import Degeneracy
from lrposterior.degeneracy.directions import ListedDirections
from lrposterior.distribution import NormalDistribution
from lrposterior.fit_quality import assess_fit
from lrposterior.perturbation.ranking import PerturbationRanking
from lrposterior.plots.perturbation import classify
from lrposterior.plots.style import PALETTE, VERMILION, group_neurons, plain
from lrposterior.posterior import FitStatistics, Posterior


def _quality():
    fit = small_fit()
    return assess_fit(fit.posterior), assess_fit(fit.posterior, fit.held_out)


@functools.cache
def _scores():
    """Responses of toy networks of two classes, and the scores of a prediction that is too sure."""
    random = np.random.default_rng(0)
    mean = random.standard_normal((30, 8)) * np.linspace(0.2, 2.0, 30)[:, None]
    draws, truth = mean + 0.5 * random.standard_normal((60, 30, 8)), mean + random.standard_normal((30, 8))
    return lrp.score_predictions(draws, truth, classes=["random"] * 15 + ["latent"] * 15, seed=0)


@functools.cache
def _calibration(num_quantities: int = 7) -> lrp.CalibrationResult:
    """Ranks of which the last are those of a posterior that is too narrow, and a fit that was refused."""
    random = np.random.default_rng(1)
    names = [f"quantity {index}" for index in range(num_quantities)]
    simulations = [
        SimulatedTruth(
            seed,
            num_draws=99,
            below={name: int(100 * random.beta(*([0.4, 0.4] if name == names[-1] else [1, 1]))) for name in names},
            equal=dict.fromkeys(names, 0),
            error=dict.fromkeys(names, 0.0),
        )
        for seed in range(60)
    ]
    return lrp.CalibrationResult.of([*simulations, SimulatedTruth(60, refusal="rank 2 is not supported")])


def _comparison():
    """Of the small fit and the same one with all factors of W that write to the first neurons turned round."""
    posterior = small_fit().posterior
    z = posterior.distribution.location.copy()
    z[: 4 * posterior.model.rank] *= -1.0
    changed = dataclasses.replace(
        posterior, mode_coordinates=z, distribution=dataclasses.replace(posterior.distribution, location=z)
    )
    return lrp.compare_posteriors(posterior, changed, num_draws=200, seed=0)


FIGURES: dict[str, Callable[[], Figure]] = {
    "recording": lambda: plots.plot_recording(small_fit().training, trial=1),
    "rates": lambda: plots.plot_rates(small_fit().posterior, num_draws=20, seed=0),
    "rates_held_out": lambda: plots.plot_rates(small_fit().posterior, small_fit().held_out, num_draws=20, seed=0),
    "residuals": lambda: plots.plot_residuals(_quality()[0]),
    "explained_variance": lambda: plots.plot_explained_variance(*_quality()),
    "comparison": lambda: plots.plot_comparison(_comparison()),
    "connectivity": lambda: plots.plot_connectivity(small_fit().posterior, num_draws=30, seed=0),
    "spectrum": lambda: plots.plot_spectrum(small_fit().degeneracy),
    "contraction": lambda: plots.plot_contraction(small_fit().degeneracy),
    "subspaces": lambda: plots.plot_subspaces(small_fit().degeneracy, num_draws=30, seed=0),
    "ranking": lambda: plots.plot_ranking(small_fit().ranking),
    "ranking_information": lambda: plots.plot_ranking(small_fit().ranking.ranked_by("information")),
    "responses": lambda: plots.plot_responses(small_fit().ranking, cell_types=small_fit().training.cell_types),
    "certainty_information": lambda: plots.plot_certainty_information(small_fit().ranking),
    "rank_selection": lambda: plots.plot_rank_selection(make_rank_selection()),
    "accuracy": lambda: plots.plot_accuracy(small_fit().ranking, np.linspace(-3.0, 1.0, 18)),
    "prediction_scores": lambda: plots.plot_prediction_scores(_scores()),
    "pit": lambda: plots.plot_prediction_scores(_scores(), "latent", panel="ranks"),
    "coverage": lambda: plots.plot_prediction_scores(_scores(), panel="coverage"),
    "reliability": lambda: plots.plot_prediction_scores(_scores(), panel="reliability"),
    "class_r2": lambda: plots.plot_prediction_scores(_scores(), panel="class R²"),
    "sparsification": lambda: plots.plot_prediction_scores(_scores(), panel="sparsification"),
    "risk": lambda: plots.plot_prediction_scores(_scores(), panel="risk"),
    "calibration": lambda: plots.plot_calibration(_calibration()),
    "calibration_familywise": lambda: plots.plot_calibration(_calibration(), familywise=True),
}


@functools.cache
def _drawn(name: str) -> Figure:
    """A figure, made and drawn once for all tests, under a setting of the user's which must neither change nor show."""
    with matplotlib.rc_context({"axes.titlesize": 31.0}):
        before = dict(matplotlib.rcParams)
        figure = FIGURES[name]()
        plots.to_png(figure)
        assert dict(matplotlib.rcParams) == before
    if "matplotlib.pyplot" in sys.modules:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []
    return figure


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_neither_changes_nor_shows_the_users_settings(name):
    figure = _drawn(name)
    assert type(figure) is Figure
    assert all(axes.title.get_fontsize() < 12 for axes in figure.axes)


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_overlaps_or_is_cut_off(name):
    _assert_legible(_drawn(name))


UNITS = {
    "recording": ["time (s)", "input\n(own units)", "mean activity\n(recorded units)", "activity (recorded units)"],
    "rates": ["time (s)", "rate (recorded units)"],
    "residuals": ["time (s)", "lag (s)", "residual / noise sd"],
    "explained_variance": ["explained variance (share)"],
    "comparison": ["current / rate", "size of the change (current / rate)"],
    "connectivity": ["W (current / rate)", "sd of W (current / rate)", "real part (current / rate)"],
    "spectrum": ["information λ (prior / posterior variance − 1)"],
    "contraction": ["variance removed (share of the prior's)"],
    "subspaces": ["QᵀWQ (current / rate)", "share of the removed variance"],
    "ranking": ["expected R² of the prediction"],
    "ranking_information": ["information (nats)"],
    "responses": ["time (s)", "readout of the\nresponse (current)", "response (current)"],
    "certainty_information": ["information of one trial\nper condition (nats)", "expected R² of the prediction"],
    "rank_selection": ["log evidence, below the best (nats)", "log density, below the best (nats)"],
    "accuracy": ["achieved R²", "expected R² (predicted certainty)"],
    "reliability": ["achieved R²", "expected R² (predicted certainty)"],
    "pit": ["rank of the truth among the draws", "ECDF − uniform"],
    "coverage": ["probability of the interval", "share of entries inside"],
    "risk": ["share of candidates kept", "1 − R², weighted by power"],
    "sparsification": ["share of candidates removed", "mean of 1 − R² (at most 2)"],
    "calibration": ["rank of the truth", "ECDF − uniform"],
}


@pytest.mark.parametrize("name", UNITS)
def test_labels_carry_units(name):
    shown = {text.get_text() for text in _drawn(name).findobj(Text)}
    assert set(UNITS[name]) <= shown


def test_recording_shows_the_trial_and_what_was_not_observed():
    recording = small_fit().training
    figure = plots.plot_recording(recording, trial=1, activity_unit="spikes/s")
    inputs, population, neurons = figure.axes[:3]
    order, groups = group_neurons(recording.cell_types, recording.num_neurons)
    shown = np.ma.filled(_image(neurons).astype(float), np.nan).T
    expected = np.where(recording.mask[1], recording.activity[1], np.nan)[:, order]
    np.testing.assert_array_equal(shown, expected)
    assert np.isnan(shown).sum() == 2
    assert [group.label for group in groups] == ["E", "I"]
    np.testing.assert_array_equal(inputs.patches[0].get_data().values, recording.inputs[1, :, 0])
    inhibitory = np.nanmean(np.where(recording.mask, recording.activity, np.nan)[1][:, [0, 4]], axis=1)
    np.testing.assert_allclose(population.lines[1].get_ydata(), inhibitory)
    assert "activity (spikes/s)" in {text.get_text() for text in figure.findobj(Text)}


def test_rates_show_what_was_observed_and_predicted():
    fit = small_fit()
    quality = assess_fit(fit.posterior, fit.held_out)
    axes = plots.plot_rates(fit.posterior, fit.held_out, neurons=[2, 5], trial=1, num_draws=20, seed=0).axes
    for panel, neuron in zip(axes, (2, 5), strict=True):
        predicted, observed = panel.lines
        np.testing.assert_array_equal(predicted.get_ydata(), quality.predicted[1, :, neuron])
        seen = fit.held_out.mask[1, :, neuron]
        np.testing.assert_array_equal(observed.get_ydata()[seen], fit.held_out.activity[1, seen, neuron])
        assert np.isnan(observed.get_ydata()[~seen]).all()
        np.testing.assert_allclose(observed.get_xdata()[0], 0.01)  # the middle of the first bin
    assert f"{quality.neuron_explained_variance[5]:.2f}" in axes[1].get_title(loc="left")


def test_rates_without_a_choice_run_from_the_best_to_the_worst_explained():
    quality = _quality()[0]
    figure = plots.plot_rates(small_fit().posterior, num_draws=20, seed=0)
    shown = [float(axes.get_title(loc="left").rsplit(" ", 1)[1]) for axes in figure.axes if axes.get_visible()]
    assert len(shown) == 6
    assert shown == sorted(shown, reverse=True)
    np.testing.assert_allclose(
        [shown[0], shown[-1]],
        [quality.neuron_explained_variance.max(), quality.neuron_explained_variance.min()],
        atol=0.005,
    )


def test_current_is_compared_where_current_was_recorded():
    model = plain_model(rank=1, observation=lrp.GaussianObservation(of="current"))
    simulation = lrp.simulate_recording(model, num_neurons=5, num_trials=3, num_bins=20, noise_scale=0.05, seed=0)
    posterior = make_posterior(model, simulation.recording)
    quality = assess_fit(posterior)
    assert np.abs(np.tanh(quality.predicted) - posterior.mode_rates()).max() < 1e-12
    figure = plots.plot_rates(posterior, num_draws=5, seed=0)
    assert "current (recorded units)" in {text.get_text() for text in figure.findobj(Text)}


def test_residuals_have_the_size_and_the_correlation_that_is_drawn():
    quality = _quality()[0]
    histogram, course, correlation = plots.plot_residuals(quality).axes
    residuals = quality.standardized_residuals
    np.testing.assert_allclose(course.lines[0].get_ydata(), np.sqrt(np.nanmean(residuals**2, axis=(0, 2))))
    lagged = np.nanmean(residuals[:, 3:] * residuals[:, :-3]) / np.nanmean(residuals**2)
    np.testing.assert_allclose(correlation.lines[0].get_ydata()[2], lagged)
    np.testing.assert_allclose(correlation.lines[0].get_xdata()[2], 0.06)
    values, edges, _ = histogram.patches[0].get_data()
    np.testing.assert_allclose(np.sum(values * np.diff(edges)), 1.0)


def test_explained_variance_shows_every_neuron_in_one_order():
    quality, held_out = _quality()
    axes = plots.plot_explained_variance(quality, held_out).axes[0]
    order = np.argsort(-quality.neuron_explained_variance)
    fitted, expected, validation = (np.asarray(points.get_offsets())[:, 1] for points in axes.collections)
    np.testing.assert_array_equal(fitted, quality.neuron_explained_variance[order])
    np.testing.assert_array_equal(expected, held_out.neuron_expected[order])
    np.testing.assert_array_equal(validation, held_out.neuron_explained_variance[order])


def test_explained_variance_follows_its_definition():
    quality = _quality()[1]
    recording, neuron = quality.recording, 2  # the neuron with masked bins
    seen = recording.mask[:, :, neuron]
    observed, predicted = recording.activity[:, :, neuron][seen], quality.predicted[:, :, neuron][seen]
    by_hand = 1.0 - np.sum((observed - predicted) ** 2) / np.sum((observed - observed.mean()) ** 2)
    np.testing.assert_allclose(quality.neuron_explained_variance[neuron], by_hand)


def test_connectivity_shows_mean_sd_and_eigenvalues():
    posterior = small_fit().posterior
    mean, sd, plane = plots.plot_connectivity(posterior, num_draws=30, seed=4).axes[:3]
    order, _ = group_neurons(posterior.recording.cell_types, posterior.recording.num_neurons)
    block = np.ix_(order, order)
    np.testing.assert_array_equal(_image(mean), posterior.connectivity_mean()[block])
    np.testing.assert_array_equal(_image(sd), posterior.connectivity_sd()[block])
    draws = np.asarray(plane.collections[0].get_offsets())
    eigenvalues = posterior.eigenvalues(30, seed=4).ravel()
    np.testing.assert_array_equal(draws, np.stack([eigenvalues.real, eigenvalues.imag], axis=1))
    circle = plane.lines[0]
    np.testing.assert_allclose(circle.get_xdata() ** 2 + circle.get_ydata() ** 2, 1.0)


def test_spectrum_shows_every_direction_and_counts_them():
    degeneracy = small_fit().degeneracy
    axes = plots.plot_spectrum(degeneracy).axes[0]
    for line, directions in zip(axes.lines, (degeneracy.parameters, degeneracy.connectivity), strict=False):
        np.testing.assert_array_equal(line.get_ydata(), np.maximum(directions.spectrum, 1e-4))
        assert f"{directions.num_constrained} of {directions.num_directions} constrained" in line.get_label()


def test_contraction_shows_every_synapse():
    degeneracy = small_fit().degeneracy
    image, histogram = plots.plot_contraction(degeneracy).axes[:2]
    order, _ = group_neurons(small_fit().training.cell_types, 8)
    np.testing.assert_array_equal(_image(image), degeneracy.contraction[np.ix_(order, order)])
    np.testing.assert_allclose(histogram.patches[0].get_data().values.sum(), 1.0)


def test_subspaces_show_shares_patterns_and_intervals():
    degeneracy = small_fit().degeneracy
    shares, patterns, mean, intervals = plots.plot_subspaces(degeneracy, num_patterns=3, num_draws=30, seed=0).axes[:4]
    np.testing.assert_array_equal(shares.lines[0].get_ydata(), degeneracy.read.shares[:3])
    np.testing.assert_array_equal(shares.lines[1].get_ydata(), degeneracy.written.shares[:3])
    points = np.concatenate([np.asarray(group.get_offsets()) for group in patterns.collections])
    np.testing.assert_array_equal(np.sort(points[:, 0]), np.sort(degeneracy.read.patterns[0]))
    latent = degeneracy.latent_connectivity(num_draws=30, seed=0)
    np.testing.assert_array_equal(_image(mean), latent.mean)
    bars = np.array([segment[:, 0] for segment in intervals.collections[0].get_segments()])
    order = np.argsort(-np.abs(latent.mean), axis=None)[: len(bars)]
    np.testing.assert_array_equal(bars, np.stack([latent.lower.ravel()[order], latent.upper.ravel()[order]], axis=1))


@pytest.mark.parametrize("by", ["certainty", "contraction", "information"])
def test_ranking_shows_every_candidate_in_its_class(by):
    ranking = small_fit().ranking.ranked_by(by)
    classes = ["neuron"] * 8 + ["ensemble"] * 6 + ["latent"] * 4
    everything, named = plots.plot_ranking(ranking, classes=classes, num_best=5).axes
    for points, name in zip(everything.collections, ("neuron", "ensemble", "latent"), strict=True):
        scores = ranking.score[np.array(classes) == name]
        np.testing.assert_array_equal(np.asarray(points.get_offsets())[:, 1], np.sort(scores)[::-1])
    labels = [label.get_text() for label in named.get_yticklabels()]
    assert labels == [plain(ranking.labels[best], 24) for best in ranking.order[:5]]
    np.testing.assert_array_equal([line.get_xdata()[0] for line in named.lines], ranking.score[ranking.order[:5]])


def test_classes_come_from_the_labels():
    assert [classify(label) for label in ("neuron 12", "E ensemble 3", "latent_1", "17")] == [
        "neuron",
        "E ensemble",
        "latent",
        "candidate",
    ]


def test_responses_show_median_bands_and_neurons():
    fit = small_fit()
    ranking, chosen = fit.ranking, [4, 0]
    axes = np.array(plots.plot_responses(ranking, chosen, cell_types=fit.training.cell_types).axes[:4]).reshape(2, 2)
    order, _ = group_neurons(fit.training.cell_types, 8)
    for column, candidate in enumerate(chosen):
        low, middle, high = ranking.readout_bands[candidate]
        np.testing.assert_array_equal(axes[0, column].lines[0].get_ydata(), middle)
        band = axes[0, column].collections[0].get_paths()[0].vertices[:, 1]
        assert {low.min(), high.max()} <= set(band)
        expected = ranking.response_mean[candidate].mean(axis=0)[:, order].T
        np.testing.assert_allclose(_image(axes[1, column]), expected, rtol=1e-6)
        place = list(ranking.order).index(candidate) + 1
        assert axes[0, column].get_title(loc="left").startswith(f"{place}. ")


def test_certainty_and_accuracy_show_every_candidate():
    ranking = small_fit().ranking
    axes = plots.plot_certainty_information(ranking).axes[0]
    points = np.concatenate([np.asarray(group.get_offsets()) for group in axes.collections])
    expected = np.stack([ranking.expected_r2, ranking.information], axis=1)
    assert set(map(tuple, points)) == set(map(tuple, expected))
    achieved = np.linspace(-3.0, 1.0, 18)
    axes = plots.plot_accuracy(ranking, achieved).axes[0]
    points = np.concatenate([np.asarray(group.get_offsets()) for group in axes.collections])
    expected = np.stack([ranking.expected_r2, np.maximum(achieved, -0.5)], axis=1)
    assert set(map(tuple, points)) == set(map(tuple, expected))


@pytest.mark.parametrize("num_neurons", [10, 100, 500])
def test_figures_stay_legible_at_any_number_of_neurons(num_neurons):
    posterior = _invented_posterior(num_neurons)
    labels = [f"a neuron with a label that is far too long {index}" for index in range(num_neurons)]
    recording = dataclasses.replace(posterior.recording, neuron_labels=labels)
    posterior = dataclasses.replace(posterior, recording=recording)
    _assert_legible(plots.plot_recording(recording))
    _assert_legible(plots.plot_connectivity(posterior, num_draws=10, seed=0))
    _assert_legible(plots.plot_rates(posterior, num_draws=5, seed=0))
    _assert_legible(plots.plot_explained_variance(assess_fit(posterior)))
    degeneracy = _invented_degeneracy(posterior)
    _assert_legible(plots.plot_spectrum(degeneracy))
    _assert_legible(plots.plot_contraction(degeneracy))
    ranking = _invented_ranking(labels)
    _assert_legible(plots.plot_ranking(ranking))
    _assert_legible(plots.plot_responses(ranking, cell_types=recording.cell_types))
    _assert_legible(plots.plot_certainty_information(ranking))


def test_colours_are_those_that_everybody_can_tell_apart():
    okabe_ito = {"#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7"}
    assert set(PALETTE) == okabe_ito
    maps = {image.get_cmap().name for name in FIGURES for image in _drawn(name).findobj(AxesImage) if image.axes.images}
    assert maps <= {"cividis", "RdBu_r", "PuOr_r"}


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda fit: plots.plot_recording(fit.training, trial=3), "trial: expected an integer from 0 to 2, got 3"),
        (lambda fit: plots.plot_recording(fit.posterior), "recording: expected Recording, got Posterior"),
        (lambda fit: plots.plot_rates(fit.posterior, fit.training, seed=0), "held_out: expected trials that the fit"),
        (
            lambda fit: plots.plot_rates(fit.posterior, fit.held_out.select(neurons=[0, 1]), seed=0),
            "held_out: expected num_neurons = 8 of the fitted trials, got 2",
        ),
        (lambda fit: plots.plot_rates(fit.posterior, neurons=[9], seed=0), "neurons: expected indices from 0 to 7"),
        (lambda fit: plots.plot_residuals(fit.posterior), "quality: expected FitQuality, got Posterior"),
        (lambda fit: plots.plot_spectrum(fit.posterior), "degeneracy: expected Degeneracy, got Posterior"),
        (lambda fit: plots.plot_ranking(fit.ranking, classes=["a"]), "classes: expected 18 strings"),
        (lambda fit: plots.plot_ranking(fit.ranking, num_best=0), "num_best: expected an integer"),
        (lambda fit: plots.plot_responses(fit.ranking, [18]), "candidates: expected an integer from 0 to 17, got 18"),
        (lambda fit: plots.plot_accuracy(fit.ranking, [0.5]), "achieved_r2: expected"),
        (lambda fit: plots.save_figure(Figure(), "a.jpg"), "figure: expected a file name that ends in .png"),
        (lambda fit: plots.save_figure(Figure(), "no/such/a.png"), "figure: expected a folder that exists"),
    ],
)
def test_bad_arguments_are_named(make, text):
    with pytest.raises(ValueError, match="expected") as error:
        make(small_fit())
    assert text in str(error.value)


@pytest.mark.parametrize("ending", [".png", ".svg", ".pdf"])
def test_a_figure_is_written_whole_or_not_at_all(tmp_path, monkeypatch, ending):
    figure = plots.plot_spectrum(small_fit().degeneracy)
    target = tmp_path / f"figure{ending}"
    plots.save_figure(figure, target)
    before = target.read_bytes()
    assert len(before) > 1000

    def interrupted(path, **options):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(figure, "savefig", interrupted)
    with pytest.raises(KeyboardInterrupt):
        plots.save_figure(figure, target)
    assert target.read_bytes() == before
    assert list(tmp_path.iterdir()) == [target]


def _image(axes):
    return axes.images[0].get_array()


def _assert_legible(figure: Figure) -> None:
    """Every word lies inside the figure, and no two on each other."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer, frame = canvas.get_renderer(), figure.bbox
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in _words(figure)]
    assert boxes
    for word, box in boxes:
        inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= frame.x1 + 1 and box.y1 <= frame.y1 + 1
        assert inside, f"{word!r} is cut off"
    for (first, one), (second, other) in itertools.combinations(boxes, 2):
        across = min(one.x1, other.x1) - max(one.x0, other.x0)
        along = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert across <= 1 or along <= 1, f"{first!r} lies on {second!r}"


def _words(figure: Figure) -> list[Text]:
    """The texts that are drawn: of ticks only those within the limits."""
    hidden = {
        id(text) for axes in figure.findobj(matplotlib.axes.Axes) if not _seen(axes) for text in axes.findobj(Text)
    }
    for axes in figure.findobj(matplotlib.axes.Axes):
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            slack = 1e-9 * (high - low)
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not low - slack <= tick.get_loc() <= high + slack or not axis.get_visible():
                    hidden |= {id(tick.label1), id(tick.label2)}
    return [
        text
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and id(text) not in hidden
    ]


def _seen(axes) -> bool:
    return axes.get_visible()


def _invented_posterior(num_neurons: int) -> Posterior:
    """A posterior around the truth, without the cost of a fit."""
    model = plain_model(rank=2)
    simulation = lrp.simulate_recording(
        model, num_neurons=num_neurons, num_trials=2, num_bins=30, noise_scale=0.2, seed=1
    )
    types = ["E" if index % 5 else "I" for index in range(num_neurons)]
    recording = dataclasses.replace(simulation.recording, cell_types=types)
    settled = model.for_recording(recording)
    space = settled.space_for(recording)
    z = np.asarray(space.whiten(settled.coordinates(simulation.parameters, recording.dt)), dtype=np.float64)
    scale = 0.02 * np.random.default_rng(0).standard_normal((space.size, 20))
    statistics = FitStatistics(1.0, 1e-8, 1e-9, 3, 1.0, None, "none")
    return Posterior(settled, recording, "laplace", 0, "converged", statistics, z, NormalDistribution(z, scale))


def _invented_degeneracy(posterior: Posterior) -> Degeneracy:
    num_neurons = posterior.recording.num_neurons
    spectrum = ListedDirections(1.0, 0, np.logspace(5, -12, 7 * num_neurons))
    degeneracy = Degeneracy(
        posterior, 1.0, 1e-6, spectrum, ListedDirections(1.0, 0, spectrum.spectrum[3 * num_neurons :])
    )
    random = np.random.default_rng(0)
    degeneracy.__dict__["contraction"] = random.uniform(size=(num_neurons, num_neurons))
    return degeneracy


def _invented_ranking(labels: list[str]) -> PerturbationRanking:
    random, count = np.random.default_rng(0), len(labels)
    score = random.uniform(size=count)
    return PerturbationRanking(
        labels=tuple(labels),
        power=np.ones(count),
        by="certainty",
        quantity="current",
        times=np.arange(12) * 0.02,
        num_draws=10,
        seed=0,
        expected_r2=score,
        contraction=score,
        information=5.0 - 4.0 * score,
        share_degenerate=score,
        noise_share=np.zeros(count),
        readout=np.full(count, 1.0 / count),
        sign_certainty=score,
        readout_mean=score,
        readout_interval=np.stack([score - 1, score + 1], axis=1),
        readout_bands=np.sort(random.normal(size=(count, 3, 12)), axis=1),
        response_mean=random.normal(size=(count, 1, 12, count)).astype(np.float32),
        response_sd=np.ones((count, 1, 12, count), np.float32),
    )


def test_coverage_and_ranks_show_what_was_scored():
    scores = _scores()
    coverage = plots.plot_prediction_scores(scores, panel="coverage").axes[0]
    marks = coverage.lines[2]
    np.testing.assert_allclose(marks.get_xdata(), [0.5, 0.8, 0.9, 0.95])
    np.testing.assert_allclose(marks.get_ydata(), scores.coverage.mean(axis=0))
    ranks = plots.plot_prediction_scores(scores, "latent", panel="ranks").axes[0]
    np.testing.assert_allclose(ranks.lines[1].get_ydata(), scores.pits[2] - scores.levels)
    assert "out of the band" in ranks.get_title(loc="left")


def test_reliability_shows_every_candidate_and_marks_what_it_cuts_off():
    scores = _scores()
    axes = plots.plot_prediction_scores(scores, panel="reliability").axes[0]
    shown = np.concatenate([np.asarray(points.get_offsets()) for points in axes.collections[1:]])
    assert len(shown) == 30
    order, drawn = np.argsort(scores.expected_r2), np.argsort(shown[:, 0])
    np.testing.assert_allclose(shown[drawn, 0], scores.expected_r2[order])
    np.testing.assert_allclose(shown[drawn, 1], np.maximum(scores.achieved_r2[order], -0.5))


def test_sparsification_ends_at_the_mean_error_of_all():
    scores = _scores()
    axes = plots.plot_prediction_scores(scores, "random", panel="sparsification").axes[0]
    random, oracle, ours = (line.get_ydata() for line in axes.lines)
    error = np.minimum(1.0 - scores.achieved_r2[scores.members("random")], 2.0)
    np.testing.assert_allclose([random[0], oracle[-1], ours[-1]], error.mean())
    np.testing.assert_allclose(oracle[0], error.min())


def test_calibration_marks_the_quantity_that_leaves_its_band():
    result = _calibration()
    figure = plots.plot_calibration(result)
    curves = [axes.lines[1] for axes in figure.axes if axes.get_visible()]
    assert [curve.get_color() == VERMILION for curve in curves] == [not holds for holds in result.in_band().values()]
    np.testing.assert_array_equal(curves[3].get_ydata(), result.band("quantity 3").difference)
    assert "60 fits, 1 refused" in figure.get_suptitle()
