"""The report: one file that needs no other, with the numbers of the Python interface and nobody's mark-up."""

import base64
import dataclasses
import functools
import html.parser
import re

import numpy as np
import pytest
from handmade import make_posterior, make_recording
from plain import plain_model
from small_fit import EVIL, small_fit

import lrposterior as lrp
from lrposterior.fit_quality import assess_fit
from lrposterior.perturbation.ranking import PerturbationRanking
from lrposterior.report import render_report, write_report

SECTIONS = ["data", "fit", "connectivity", "degeneracy", "perturbations", "settings"]


@functools.cache
def hostile_ranking() -> PerturbationRanking:
    """The ranking with mark-up in the name of the best candidate."""
    ranking = small_fit().ranking
    labels = list(ranking.labels)
    labels[ranking.order[0]] = EVIL
    labels[labels.index(EVIL)] += " of a neuron"  # the neuron's own label, should it not be the best
    return dataclasses.replace(ranking, labels=tuple(labels))


@pytest.fixture(scope="module")
def report() -> str:
    fit = small_fit()
    return render_report(
        fit.posterior,
        fit.degeneracy,
        hostile_ranking(),
        held_out=fit.held_out,
        title="A & B <i>",
        activity_unit="spikes/s",
        seed=0,
    )


class _Page(html.parser.HTMLParser):
    """Tags with their attributes, the text, and whether every tag is closed in turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "link", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.words.append(data)


def test_it_holds_every_section_with_its_caution(report):
    page = _Page(report)
    assert page.open == []
    assert [attributes["id"] for tag, attributes in page.tags if tag == "section"] == SECTIONS
    assert [attributes["href"] for tag, attributes in page.tags if tag == "a"] == [f"#{name}" for name in SECTIONS]
    assert page.text.count("What this does not mean.") == len(SECTIONS)


def test_it_needs_no_other_file_and_no_network(report):
    page = _Page(report)
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "iframe", "object", "embed"}
        for name in ("src", "href", "srcset", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/png;base64,"))
    without_images = re.sub(r"base64,[^\"]+", "", report)
    assert not re.search(r"https?://|url\(|@import", without_images)


def test_every_figure_is_a_whole_image_with_words_for_those_who_do_not_see_it(report):
    images = [attributes for tag, attributes in _Page(report).tags if tag == "img"]
    assert len(images) == 11
    for image in images:
        data = base64.b64decode(image["src"].removeprefix("data:image/png;base64,"), validate=True)
        assert data.startswith(b"\x89PNG")
        assert data.endswith(b"IEND\xaeB`\x82")
        assert len(image["alt"].split()) >= 5


def test_what_comes_from_outside_is_text(report):
    assert "<script" not in report
    assert "A &amp; B &lt;i&gt;" in report
    assert _Page(report).text.count(EVIL) >= 2  # in the summary and in the table


def test_it_tells_the_numbers_of_the_python_interface(report):
    fit = small_fit()
    text = _Page(report).text
    fitted, held_out = assess_fit(fit.posterior), assess_fit(fit.posterior, fit.held_out)
    assert f"{100 * fitted.explained_variance:.1f}% of the variance of the fitted trials" in text
    assert f"that the fit has not seen it predicts {100 * held_out.explained_variance:.1f}%" in text
    alone = fit.degeneracy.connectivity
    assert f"Of {alone.num_directions} directions" in text
    assert f"constrains {alone.num_constrained} and leaves {alone.num_degenerate} to the prior" in text
    assert f"{np.median(fit.degeneracy.contraction) * 100:.1f}% of the prior variance" in text
    best = fit.ranking.order[0]
    assert f"“{hostile_ranking().labels[best]}”" in text
    assert f"an R² of {fit.ranking.expected_r2[best]:.3g}" in text
    assert "Activity is in spikes/s" in text
    for quantity in ("0.02 s", "(current² s)", "nats"):
        assert quantity in text


@pytest.mark.slow
def test_without_held_out_trials_it_says_so():
    fit = small_fit()
    text = _Page(render_report(fit.posterior, fit.degeneracy, fit.ranking, seed=0)).text
    assert "No held-out trials were given" in text
    assert "has not seen" not in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ahead", "said"),
    [
        (12.25, "K depends on M, B and b (12.2 nats above independent)"),
        (-3.5, "K independent of M, B and b (3.5 nats above their regression)"),
        (-np.inf, "K independent of M, B and b (their regression has no posterior)"),
        (np.inf, "K depends on M, B and b (independent has no posterior)"),
    ],
)
def test_what_the_evidence_chose_is_said(ahead, said):
    fit = small_fit()
    statistics = dataclasses.replace(fit.posterior.statistics, regression_ahead=ahead)
    posterior = dataclasses.replace(fit.posterior, statistics=statistics)
    assert f"loadings: {said}" in str(posterior)
    if ahead == -3.5:
        degeneracy = dataclasses.replace(fit.degeneracy, posterior=posterior)
        assert said in _Page(render_report(posterior, degeneracy, fit.ranking, seed=0)).text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("priors", "said"),
    [
        (
            lrp.DaleLoadings(K={"E": 1.5, "I": 6.0}, unit=1.0, magnitudes="log-normal", spread=0.7),
            "K[E] 1.5, K[I] 6, B 1, b 1, initial_kappa 1, noise_scale 0.3, noise_spread 1.5, unit 1, "
            "magnitudes log-normal, spread 0.7, inhibitory I",
        ),
        (
            lrp.DaleLoadings(
                M={"E": 1.0, "I": 0.5},
                K={"E": 1.5, "I": 6.0},
                unit=1.0,
                magnitudes={"E": "log-normal", "I": "half-normal"},
                spread=0.7,
            ),
            "M[E] 1, M[I] 0.5, K[E] 1.5, K[I] 6, B 1, b 1, initial_kappa 1, noise_scale 0.3, noise_spread 1.5, unit 1, "
            "magnitudes[E] log-normal, magnitudes[I] half-normal, spread 0.7, inhibitory I",
        ),
        (lrp.DaleLoadings(K=lrp.ScalePrior(2.5), unit=1.0), "unit 1, magnitudes half-normal, inhibitory I"),
    ],
)
def test_the_priors_of_dales_law_are_told(priors, said):
    time_constant = {"E": lrp.TimeConstantPrior(0.1), "I": 0.05}
    model = lrp.LowRankModel(1, time_constant, nonlinearity="softplus", background=None, priors=priors)
    posterior = make_posterior(model, make_recording(neuron_labels=None))
    candidates = lrp.single_neuron_candidates(posterior.recording, power=1.0)
    ranking = lrp.rank_perturbations(posterior, candidates, num_draws=20, progress=False)
    ranking = dataclasses.replace(ranking, warnings=(*ranking.warnings, "draws & candidates"))
    text = _Page(render_report(posterior, lrp.analyze_degeneracy(posterior), ranking, seed=0)).text
    assert said in text
    assert "Beware. Draws & candidates." in text
    ends = [float(end[0]) for end in posterior.time_constant_interval(seed=0)]
    tau = f"E {posterior.mode['time_constant'][0]:.3g} s ({ends[0]:.3g} to {ends[1]:.3g})"
    assert f"inferred time constants (90% interval) {tau}" in text
    assert ("spread 0.7" in text) == (priors.magnitudes != "half-normal")


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(
    ("observation", "said"),
    [
        (lrp.PoissonObservation(scale=40.0), ("count, Poisson", "From the inputs alone", "noise of Poisson counts")),
        (
            lrp.NegativeBinomialObservation(scale=40.0),
            ("count, negative binomial", "From the inputs alone", "noise of negative binomial counts"),
        ),
        (lrp.CalciumObservation(0.4), ("calcium, with Gaussian noise", "One bin ahead", "noise, median over neurons")),
    ],
)
def test_what_is_observed_is_said(observation, said):
    model = plain_model(rank=1, observation=observation, priors=lrp.Priors(noise_scale=0.02))
    recording = lrp.simulate_recording(model, num_neurons=8, num_trials=12, num_bins=40, seed=0).recording
    posterior = lrp.fit(model, recording, lrp.Laplace(mean="mode"), seed=0, progress=False)
    candidates = lrp.single_neuron_candidates(recording, power=1.0)
    ranking = lrp.rank_perturbations(posterior, candidates, num_draws=20, progress=False)
    page = _Page(render_report(posterior, lrp.analyze_degeneracy(posterior), ranking, seed=0))
    for text in said:
        assert text in page.text


@pytest.mark.long
@pytest.mark.slow
def test_process_noise_and_drift_are_told():
    model = plain_model(
        rank=1, process_noise="full", drift=lrp.SessionDrift(), priors=lrp.Priors(K=2.0, noise_scale=0.1)
    )
    simulation = lrp.simulate_recording(
        model, num_neurons=8, num_trials=12, num_bins=40, session_labels=["Monday"] * 6 + ["Friday"] * 6, seed=0
    )
    recording = simulation.recording
    posterior = lrp.fit(model, recording, lrp.Laplace(mean="mode"), seed=0, progress=False)
    ranking = lrp.rank_perturbations(
        posterior, lrp.single_neuron_candidates(recording, power=1.0), num_draws=20, progress=False
    )
    page = _Page(render_report(posterior, lrp.analyze_degeneracy(posterior), ranking, seed=0))
    M, Q = posterior.mode["M"], posterior.mode["process_noise"]
    size = np.sqrt(np.trace(M @ Q @ M.T) / 8)
    offset, scale = posterior.mode["session_offset"], posterior.mode["session_scale"]
    share = ranking.noise_share[ranking.order[0]]
    assert f"process noise in one bin, root mean square over neurons sd {size:.3g} of current" in page.text
    assert f"in neighbouring bins {lrp.check_fit(posterior).autocorrelation:.3g}".replace("-", "−") in page.text
    for session, name in enumerate(("Monday", "Friday")):
        sizes = f"{offset[:, session].std():.3g}, {scale[:, session].std():.3g}"
        assert f"drift in session {name}: offsets, scales of currents (sd over neurons) {sizes}" in page.text
    assert "offsets of sd 0.3 and log scales of sd 0.1 a priori" in page.text
    assert "noise in one trial" in page.text
    assert f"{share:.3g}" in page.text


@pytest.mark.slow
def test_the_same_results_give_the_same_file(report, tmp_path):
    fit = small_fit()
    keywords = {"held_out": fit.held_out, "title": "A & B <i>", "activity_unit": "spikes/s", "seed": 0}
    write_report(tmp_path / "report.html", fit.posterior, fit.degeneracy, hostile_ranking(), **keywords)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == report
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"path": "report.pdf"}, "path: expected a file name that ends in .html, got 'report.pdf'"),
        ({"path": "no/such/folder/report.html"}, "path: expected a folder that exists"),
        ({"posterior": 1}, "posterior: expected Posterior, got int"),
        ({"degeneracy": 1}, "degeneracy: expected Degeneracy, got int"),
        ({"ranking": 1}, "ranking: expected PerturbationRanking, got int"),
        ({"held_out": "training"}, "held_out: expected trials that the fit has not seen, got 3 that were fitted"),
    ],
)
def test_bad_arguments_are_named(change, text, tmp_path):
    fit = small_fit()
    arguments = {
        "path": tmp_path / "report.html",
        "posterior": fit.posterior,
        "degeneracy": fit.degeneracy,
        "ranking": fit.ranking,
        "seed": 0,
    } | change
    if arguments.get("held_out") == "training":
        arguments["held_out"] = fit.training
    with pytest.raises(ValueError, match="expected") as error:
        write_report(**arguments)
    assert text in str(error.value)
    assert list(tmp_path.iterdir()) == []
