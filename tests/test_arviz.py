"""The bridge to ArviZ: what it hands over is what the posterior gives out, named, and free of the gauge."""

import re
import warnings

import numpy as np
import pytest
import scipy.sparse
import scipy.special
import scipy.stats
import xarray as xr
from arviz_stats import loo, summary
from handmade import NEURONS, TRIALS, fit_small_recording, in_another_gauge, make_posterior, make_recording
from plain import plain_model

import lrposterior as lrp
from lrposterior import arviz_bridge
from lrposterior.distribution import NormalDistribution

BACKGROUND = lrp.FixedBackground(scipy.sparse.csr_array(np.diag(np.full(NEURONS, 0.1), 0)))
EVERYTHING = plain_model(rank=2, time_constant=lrp.TimeConstantPrior(0.07), initial_state="free", background=BACKGROUND)


@pytest.fixture(scope="module")
def posterior():
    return make_posterior()


@pytest.fixture(scope="module")
def fitted():
    return fit_small_recording()


@pytest.fixture(scope="module")
def tree(posterior):
    return posterior.to_arviz(60, seed=3)


def test_groups_axes_and_names(tree):
    assert set(tree.children) == {"posterior", "log_likelihood", "observed_data", "constant_data"}
    axes = {name: variable.dims for name, variable in tree["posterior"].data_vars.items()}
    assert axes == {
        "W": ("chain", "draw", "post", "pre"),
        "eigenvalue_real": ("chain", "draw", "eigenvalue"),
        "eigenvalue_imag": ("chain", "draw", "eigenvalue"),
        "effective_rank": ("chain", "draw"),
        "B": ("chain", "draw", "neuron", "input"),
        "b": ("chain", "draw", "neuron"),
        "noise_scale": ("chain", "draw", "neuron"),
    }
    assert tree["log_likelihood"]["activity"].dims == ("chain", "draw", "trial")
    assert tree["observed_data"]["activity"].dims == ("trial", "time", "neuron")
    assert tree["constant_data"]["inputs"].dims == ("trial", "time", "input")
    assert tree["constant_data"]["stimulation"].dims == ("trial", "time", "neuron")
    assert tree["posterior"].sizes["chain"] == 1
    assert tree["posterior"].sizes["draw"] == 60
    expected = {
        "method": "laplace",
        "status": "converged",
        "fit_seed": 11,
        "seed": 3,
        "inference_library": "lrposterior",
    }
    assert expected.items() <= tree.attrs.items()
    assert tree.attrs["inference_library_version"] == lrp.__version__


def test_model_with_everything_inferred_adds_its_variables():
    posterior = make_posterior(EVERYTHING)
    tree, draws = posterior.to_arviz(7, seed=1), posterior.sample_parameters(7, seed=1)
    assert tree["posterior"]["initial_current"].dims == ("chain", "draw", "trial", "neuron")
    for draw in range(7):
        start = draws["initial_kappa"][draw] @ draws["M"][draw].T + draws["b"][draw]
        np.testing.assert_allclose(tree["posterior"]["initial_current"].values[0, draw], start)
    np.testing.assert_array_equal(tree["posterior"]["time_constant"].values[0], draws["time_constant"])
    assert tree["posterior"].sizes["eigenvalue"] == NEURONS


def test_time_constants_are_named_by_cell_type():
    posterior = make_posterior(plain_model(rank=1, time_constant={"I": lrp.TimeConstantPrior(0.07), "E": 0.1}))
    given, draws = posterior.to_arviz(7, seed=1)["posterior"], posterior.sample_parameters(7, seed=1)
    np.testing.assert_array_equal(given["time_constant"].sel(population="E").values, 0.1)
    np.testing.assert_array_equal(given["time_constant"].sel(population="I").values[0], draws["time_constant"][:, 0])


def test_time_constants_of_neurons_have_the_axis_of_neurons():
    posterior = make_posterior(plain_model(rank=1, time_constant=lrp.PerNeuron(lrp.TimeConstantPrior(0.07))))
    given, draws = posterior.to_arviz(7, seed=1)["posterior"], posterior.sample_parameters(7, seed=1)
    assert given["time_constant"].dims == ("chain", "draw", "neuron")
    np.testing.assert_array_equal(given["time_constant"].values[0], draws["time_constant"])


def test_values_are_those_of_the_posterior(posterior, tree):
    given, draws = tree["posterior"], posterior.sample_parameters(60, seed=3)
    W = posterior.sample_connectivity(60, seed=3)
    np.testing.assert_array_equal(given["W"].values[0], W.to_dense())
    np.testing.assert_array_equal(
        given["eigenvalue_real"].values[0] + 1j * given["eigenvalue_imag"].values[0], W.eigenvalues()
    )
    np.testing.assert_array_equal(given["effective_rank"].values[0], posterior.effective_rank(60, seed=3))
    for name in ("B", "b", "noise_scale"):
        np.testing.assert_array_equal(given[name].values[0], draws[name])


@pytest.mark.parametrize("model", [plain_model(rank=2), EVERYTHING], ids=["plain", "everything"])
def test_log_likelihood_by_trial(model):
    posterior = make_posterior(model)
    recording = posterior.recording
    given = posterior.to_arviz(5, seed=2)["log_likelihood"]["activity"].values[0]
    rates, draws = posterior.predict_rates(num_draws=5, seed=2), posterior.sample_parameters(5, seed=2)
    density = scipy.stats.norm(rates, draws["noise_scale"][:, None, None, :]).logpdf(recording.activity)
    np.testing.assert_allclose(given, np.where(recording.mask, density, 0.0).sum(axis=(2, 3)), rtol=1e-10)


def test_observed_data_is_missing_where_masked(posterior, tree):
    recording = posterior.recording
    observed = tree["observed_data"]["activity"].values
    np.testing.assert_array_equal(np.isnan(observed), ~recording.mask)
    np.testing.assert_array_equal(observed[recording.mask], recording.activity[recording.mask])


def test_coordinates_are_labels_and_seconds(posterior, tree):
    labels = list(posterior.recording.neuron_labels)
    for axis in ("neuron", "post", "pre"):
        assert tree["posterior"][axis].values.tolist() == labels
    np.testing.assert_allclose(tree["observed_data"]["time"].values, np.arange(9) * 0.02)
    # two trials share a label: an axis needs names of which no two are alike
    assert tree["log_likelihood"]["trial"].values.tolist() == list(range(TRIALS))
    assert tree["constant_data"]["trial_labels"].values.tolist() == list(posterior.recording.trial_labels)
    assert tree["constant_data"]["cell_types"].dims == ("neuron",)
    named = make_posterior(recording=make_recording(trial_labels=["a", "b", "c", "d"])).to_arviz(2, seed=0)
    assert named["log_likelihood"]["trial"].values.tolist() == ["a", "b", "c", "d"]


def test_recording_with_activity_only():
    tree = make_posterior(recording=make_recording(bare=True)).to_arviz(4, seed=0)
    assert set(tree["constant_data"].data_vars) == {"dt"}
    assert "B" not in tree["posterior"]
    assert tree["posterior"]["post"].values.tolist() == list(range(NEURONS))
    assert not np.isnan(tree["observed_data"]["activity"].values).any()


def test_independent_draws_default_to_400_and_follow_their_seed(posterior):
    trees = [posterior.to_arviz(seed=seed)["posterior"]["W"].values for seed in (0, 0, 1)]
    assert trees[0].shape[:2] == (1, 400)
    np.testing.assert_array_equal(trees[0], trees[1])
    assert not np.any(trees[0] == trees[2])


# -------------------------------------------------------------------------------------------------------------- chains


def test_chains_stay_chains():
    posterior = make_posterior(chains=True)
    stored = posterior.distribution.draws
    space = posterior.space
    tree = posterior.to_arviz(seed=0)
    assert tree["posterior"]["W"].shape == (*stored.shape[:2], NEURONS, NEURONS)
    for chain, draw in ((0, 0), (1, 7), (2, 39)):
        z = space.unwhiten(stored[chain, draw])
        np.testing.assert_allclose(tree["posterior"]["W"].values[chain, draw], z["M"] @ z["K"].T / NEURONS, atol=1e-12)
        np.testing.assert_allclose(tree["posterior"]["b"].values[chain, draw], z["b"])


@pytest.mark.parametrize(("asked", "kept"), [(3, [0]), (12, [0, 13, 26, 39]), (14, [0, 13, 26, 39]), (120, range(40))])
def test_chains_are_thinned_evenly(asked, kept):
    posterior = make_posterior(chains=True)
    everything = posterior.to_arviz(seed=0)["posterior"]["b"].values
    np.testing.assert_array_equal(posterior.to_arviz(asked, seed=0)["posterior"]["b"].values, everything[:, list(kept)])


def test_nothing_depends_on_the_gauge():
    posterior = make_posterior(EVERYTHING, chains=True)
    given, moved = posterior.to_arviz(seed=0), in_another_gauge(posterior).to_arviz(seed=0)
    for group in ("posterior", "log_likelihood"):
        for name, values in given[group].data_vars.items():
            np.testing.assert_allclose(moved[group][name], values, rtol=1e-7, atol=1e-9, err_msg=name)


# --------------------------------------------------------------------------------------------------------------- ArviZ


def test_summary_without_convergence_measures(tree):
    table = summary(tree, kind="stats", round_to="none")
    row = table.loc["W[µ1, a b]"]
    draws = tree["posterior"]["W"].sel(post="µ1", pre="a b").values
    np.testing.assert_allclose([row["mean"], row["sd"]], [draws.mean(), draws.std()], rtol=1e-6)
    assert not {"r_hat", "ess_bulk", "ess_tail"} & set(table.columns)


def test_convergence_measures_of_chains():
    table = summary(make_posterior(chains=True).to_arviz(seed=0), var_names=["W", "effective_rank"])
    r_hat = np.asarray(table["r_hat"], dtype=float)
    assert np.all((r_hat > 0.95) & (r_hat < 1.2))


def test_leave_one_trial_out_of_a_fit(fitted):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Pareto k: few trials, each with much to say
        result = loo(fitted.to_arviz(seed=0), pointwise=True)
    assert result.n_data_points == fitted.recording.num_trials
    assert result.elpd_i.dims == ("trial",)
    assert np.isfinite(result.elpd)


def test_leave_one_trial_out_of_a_posterior_in_which_trials_say_little():
    """Against the importance-sampled mean written out, which is exact to Monte-Carlo error where weights are even."""
    posterior = make_posterior(recording=make_recording(bare=True))
    distribution = NormalDistribution(posterior.distribution.location, 1e-3 * posterior.distribution.scale)
    tree = lrp.Posterior(**{**vars(posterior), "distribution": distribution}).to_arviz(2000, seed=0)
    log_likelihood = tree["log_likelihood"]["activity"].values[0]
    result = loo(tree, pointwise=True)
    expected = np.log(2000) - scipy.special.logsumexp(-log_likelihood, axis=0)
    np.testing.assert_allclose(result.elpd_i.values, expected, rtol=1e-6)


def test_the_package_arviz_reads_it(fitted):
    arviz = pytest.importorskip("arviz")
    tree = fitted.to_arviz(seed=0)
    data = arviz.InferenceData.from_datatree(tree) if hasattr(arviz, "InferenceData") else tree
    table = arviz.summary(data, var_names=["W"], kind="stats")
    assert len(table) == fitted.recording.num_neurons**2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert arviz.loo(data).n_data_points == fitted.recording.num_trials


def test_tree_goes_through_a_file(tree, tmp_path):
    tree.to_netcdf(tmp_path / "tree.nc", engine="h5netcdf")
    with xr.open_datatree(tmp_path / "tree.nc", engine="h5netcdf") as loaded:
        np.testing.assert_array_equal(loaded["posterior"]["W"].values, tree["posterior"]["W"].values)
        assert loaded["posterior"]["post"].values.tolist() == tree["posterior"]["post"].values.tolist()


# -------------------------------------------------------------------------------------------------------------- limits


def test_large_connectivity_is_refused_and_can_be_left_out(posterior, monkeypatch):
    limit = 50 * (NEURONS**2 - 1) * 8 / 1e9
    monkeypatch.setattr(arviz_bridge, "MAX_GIGABYTES", limit)
    mend = "ask for fewer draws by num_draws=, or leave W out by connectivity=False"
    with pytest.raises(ValueError, match=rf"to_arviz: expected an array of at most .* GB, got .* GB; {mend}"):
        posterior.to_arviz(50, seed=0)
    variables = posterior.to_arviz(50, seed=0, connectivity=False)["posterior"].data_vars
    assert "W" not in variables
    assert {"eigenvalue_real", "effective_rank", "b"} <= set(variables)
    assert not {"W", "eigenvalue_real", "effective_rank"} & set(
        make_posterior(EVERYTHING).to_arviz(2, seed=0, connectivity=False)["posterior"].data_vars
    )


def test_size_is_checked_before_anything_is_drawn(posterior):
    with pytest.raises(ValueError, match=r"to_arviz: expected an array of at most 2 GB, got .*ask for fewer draws"):
        posterior.to_arviz(10**9, seed=0)


@pytest.mark.parametrize(
    ("chains", "arguments", "message"),
    [
        (False, {"num_draws": 0, "seed": 0}, "num_draws: expected an integer >= 1, got 0"),
        (False, {"num_draws": 2.5, "seed": 0}, "num_draws: expected an integer >= 1, got 2.5"),
        (False, {"num_draws": 5, "seed": None}, "seed: expected an integer >= 0, got None"),
        (False, {"num_draws": 5, "seed": -1}, "seed: expected an integer >= 0, got -1"),
        (True, {"num_draws": 2, "seed": 0}, "num_draws: expected 3 to 120, the draws of 3 chains, got 2; choose"),
        (True, {"num_draws": 121, "seed": 0}, "num_draws: expected 3 to 120, the draws of 3 chains, got 121; choose"),
    ],
)
def test_bad_arguments(chains, arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make_posterior(chains=chains).to_arviz(**arguments)
