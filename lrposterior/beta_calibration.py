"""The beta of a generalised posterior, by simulated sessions: that with which its intervals hold what they say.

What a recording says of beta is nothing: exp(-beta L) is no density of data. So it is asked how often intervals hold
the truth where it is known, in the manner of Syring and Martin (2019, doi:10.1093/biomet/asy054), but over networks of
the prior instead of one network that was fitted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import threadpoolctl
from tqdm.auto import tqdm

from lrposterior.background import RandomBulk
from lrposterior.calibration import Networks
from lrposterior.calibration.quantities import Quantities
from lrposterior.checks import argument_error, read_only, require_instance, require_integer, require_positive
from lrposterior.fit_error import FitError
from lrposterior.hidden import require_none_hidden
from lrposterior.inference.gibbs import Gibbs, around_match
from lrposterior.inference.match import match_networks
from lrposterior.inference.problem import ScaledProblem
from lrposterior.model import LowRankModel
from lrposterior.posterior import Posterior
from lrposterior.precision import double_precision
from lrposterior.recording import Recording

if TYPE_CHECKING:
    import pandas as pd

NOMINAL = 0.9
# Central intervals of so many draws and the truth hold exactly 90% of the ranks.
NUM_DRAWS = 399
# A simulated session has the root mean square of the activity of the recording up to this factor.
LIKE_FACTOR = 2.0
MOST_TRIES = 100
# Of the stimulation, in units of current; onset and lengths are parts of the trial.
STIMULUS, ONSET, DURATION, WINDOW = 1.0, 1 / 3, 1 / 12, 1 / 4


def mean_weights_and_responses(networks: Networks) -> dict[str, np.ndarray]:
    """What intervals are asked for where nothing else is named, (draw,) each.

    - "W[E, I]": the mean weight from I to E, and so on for every pair of cell types;
    - "E to stimulated I": the mean change of the rates of E when all I receive one unit of current for a twelfth of the
      first trial from its third on, averaged over a quarter of it, without process noise, and so on.

    Without cell types all neurons are of one, "all".
    """
    recording, W = networks.recording, networks.connectivity
    cell_types = np.array(recording.cell_types or ("all",) * recording.num_neurons)
    members = {name: np.flatnonzero(cell_types == name) for name in np.unique(cell_types)}
    pairs = [(post, pre) for post in members for pre in members]
    dense = np.stack([W.dense(draw) for draw in range(W.num_draws)])
    found = {f"W[{post}, {pre}]": dense[:, members[post]][:, :, members[pre]].mean(axis=(1, 2)) for post, pre in pairs}
    onset, duration, window = (int(part * recording.num_bins) for part in (ONSET, DURATION, WINDOW))
    unit = 1.0 if networks.model.priors.unit is None else networks.model.priors.unit
    stimulation = np.zeros((1 + len(members), recording.num_bins, recording.num_neurons))
    for trial, chosen in enumerate(members.values(), 1):
        stimulation[trial, onset : onset + duration, chosen] = STIMULUS * unit
    trials = Recording(
        np.zeros_like(stimulation),
        recording.dt,
        inputs=np.repeat(recording.inputs[:1], len(stimulation), axis=0),
        stimulation=stimulation,
        cell_types=recording.cell_types,
    )
    rates = networks.rates(trials)[:, :, onset : onset + window].mean(axis=2)
    change = rates[:, 1:] - rates[:, :1]
    for post, pre in pairs:
        found[f"{post} to stimulated {pre}"] = change[:, list(members).index(pre), members[post]].mean(axis=1)
    return found


@dataclass(frozen=True, eq=False, repr=False)
class BetaCalibration:
    """How often 90% intervals of generalised posteriors hold the truth, by beta; made by `calibrate_beta`.

    Attributes:
        betas: (beta,) ascending.
        quantities: names of what intervals were asked for.
        held: (session, beta, quantity) 1 where the interval held the truth, 0 where not, NaN where there was no fit.
        width: (session, beta, quantity) width of the interval over that of the prior's, NaN where there was no fit.
        refusals: why fits were refused, by session and beta. They do not count: what can be fitted the data say, so
            that right posteriors would still cover the others.
    """

    betas: np.ndarray
    quantities: tuple[str, ...]
    held: np.ndarray
    width: np.ndarray
    refusals: Mapping[tuple[int, float], str]

    def __post_init__(self) -> None:
        for name in ("betas", "held", "width"):
            object.__setattr__(self, name, read_only(getattr(self, name)))

    @property
    def cover(self) -> np.ndarray:
        """(beta, quantity) share of the fitted sessions whose interval held the truth; NaN where none was fitted."""
        num_fitted = np.isfinite(self.held).sum(axis=0)
        return np.divide(
            np.nansum(self.held, axis=0), num_fitted, out=np.full(num_fitted.shape, np.nan), where=num_fitted > 0
        )

    @property
    def mean_cover(self) -> np.ndarray:
        """(beta,) over quantities."""
        return self.cover.mean(axis=1)

    @property
    def standard_error(self) -> np.ndarray:
        """(beta,) of the mean cover, from the scatter between fitted sessions; NaN for less than two."""
        shares = [each[np.isfinite(each)] for each in self.held.mean(axis=2).T]
        return np.array([each.std(ddof=1) / np.sqrt(each.size) if each.size > 1 else np.nan for each in shares])

    @property
    def beta(self) -> float | None:
        """The largest beta with a mean cover of 90% or more; None where there is none."""
        enough = self.mean_cover >= NOMINAL
        return float(self.betas[enough].max()) if enough.any() else None

    def to_dataframe(self) -> pd.DataFrame:
        """A row for every beta and quantity: cover, and the median width of the interval over the prior's."""
        import pandas as pd

        axes = [range(len(self.held)), self.betas, self.quantities]
        index = pd.MultiIndex.from_product(axes, names=["session", "beta", "quantity"])
        each = pd.DataFrame({"held": self.held.ravel(), "width": self.width.ravel()}, index=index)
        by_pair = each.groupby(level=["beta", "quantity"], sort=False)
        return pd.DataFrame({"cover": by_pair["held"].mean(), "width": by_pair["width"].median()}).reset_index()

    def __repr__(self) -> str:
        chosen = "no beta covers 90%" if self.beta is None else f"beta {self.beta:g}"
        return f"BetaCalibration({chosen}; {len(self.held)} sessions, {len(self.betas)} values of beta)"

    def __str__(self) -> str:
        """A table of cover by beta, and what was chosen."""
        table = self.to_dataframe()
        lines = [f"cover of 90% intervals in {len(self.held)} simulated sessions, {len(self.refusals)} fits refused"]
        lines.append(f"{'beta':>9s}  fitted  mean cover (se)  width over the prior's, median  lowest cover")
        for row, beta in enumerate(self.betas):
            own = table[table.beta == beta]
            lowest = own.loc[own.cover.fillna(0.0).idxmin()]
            num_fitted = int(np.isfinite(self.held[:, row, 0]).sum())
            lines.append(
                f"{beta:9g}  {num_fitted:6d}  {self.mean_cover[row]:10.2f} ({self.standard_error[row]:.2f})"
                f"  {own.width.median():29.2f}  {lowest.cover:.2f} {lowest.quantity}"
            )
        if self.beta is None:
            lines.append("none covers 90%: lower betas may, or these losses do not say where the truth is")
        else:
            short = table[(table.beta == self.beta) & (table.cover < NOMINAL)]
            names = ", ".join(f"{name} {cover:.2f}" for name, cover in zip(short.quantity, short.cover, strict=True))
            lines.append(f"chosen: {self.beta:g}" + (f"; below 90%: {names}" if names else ""))
        return "\n".join(lines)


def calibrate_beta(
    model: LowRankModel,
    recording: Recording,
    method: Gibbs,
    *,
    betas: Sequence[float],
    num_sessions: int,
    quantities: Quantities = mean_weights_and_responses,
    seed: int,
    progress: bool = True,
) -> BetaCalibration:
    """Simulate sessions like a recording, fit each at several beta, and see at which intervals hold the truth.

    The truths are networks of the prior with the inputs, trials, neurons, mask and labels of the recording, the unit
    and the scales of the observation that it settles, and prior scales that are inferred at the medians of their
    priors where they are no parameters. A session counts as like the recording where the root mean square of its
    activity is within a factor of two of the recorded one. That is said of the data, so that right posteriors would
    cover the truths of these sessions as they say.

    Cover is an average over the prior: it says nothing for certain about the one network that was recorded. At the
    smallest beta the posterior is the prior, which covers its own networks, whatever L says: read the width as well.

    Args:
        model: what is to be fitted.
        recording: the recording.
        method: how; its beta is not used, and no checkpoint is written.
        betas: values that are tried, as a rule over a factor of a hundred or more.
        num_sessions: how many are simulated; the standard error of the cover of one quantity is 0.3 over its root.
        quantities: functions of a network that intervals are asked for, (draw,) each, as in `simulate_calibration`.
        seed: of everything random.
        progress: show a progress bar.

    Raises:
        ValueError: if an argument is out of its range, or no network of the prior has trials like the recording's.
    """
    require_instance(model, "model", LowRankModel)
    require_instance(recording, "recording", Recording)
    require_instance(method, "method", Gibbs, "for example Gibbs(beta=100.0, match=Match(conditions=labels))")
    require_none_hidden(model.hidden_neurons, "model")
    if isinstance(model.background, RandomBulk):
        mend = "calibrate with background=None"
        raise argument_error("model", "a model without a random bulk, which no recording settles", "one with it", mend)
    tried = tuple(sorted({require_positive(each, "betas") for each in betas}))
    if not tried:
        raise argument_error("betas", "one value or more", "none", "for example (10, 100, 1000)")
    require_integer(num_sessions, "num_sessions", minimum=1)
    require_integer(seed, "seed")
    with threadpoolctl.threadpool_limits(1, "blas"):
        return _calibrated(model, recording, method, tried, num_sessions, quantities, seed, progress)


@double_precision
def _calibrated(
    model: LowRankModel,
    recording: Recording,
    method: Gibbs,
    betas: tuple[float, ...],
    num_sessions: int,
    quantities: Quantities,
    seed: int,
    progress: bool,
) -> BetaCalibration:
    base, random = ScaledProblem.settled(model, recording), np.random.default_rng([seed, 3])
    prior = _of_networks(base, random.standard_normal((NUM_DRAWS, base.space.size)), quantities)
    names = tuple(prior)
    widths = _widths(prior, names)
    held = np.full((num_sessions, len(betas), len(names)), np.nan)
    width, refusals = held.copy(), {}
    with tqdm(total=held[:, :, 0].size, unit="fit", disable=not progress) as bar:
        for session in range(num_sessions):
            z, simulated = _session(base, random)
            true = _of_networks(base, z[None], quantities)
            for place, found in enumerate(_fits(base, simulated, method, betas, seed + session)):
                bar.update()
                if isinstance(found, FitError):
                    refusals[session, betas[place]] = str(found)
                    continue
                drawn = found.sample_parameters(NUM_DRAWS, seed=seed + session)
                own = quantities(Networks(found.model, drawn, recording))
                below = np.array([np.count_nonzero(own[name] < true[name]) for name in names])
                held[session, place] = np.abs((below + 0.5) / (NUM_DRAWS + 1) - 0.5) < 0.5 * NOMINAL
                width[session, place] = _widths(own, names) / widths
    return BetaCalibration(np.array(betas), names, held, width, refusals)


def _fits(
    base: ScaledProblem, simulated: Recording, method: Gibbs, betas: Sequence[float], seed: int
) -> Iterator[Posterior | FitError]:
    """The generalised posterior of a session at every beta, all from one network that matches it, or why not."""
    match = dataclasses.replace(method.match, checkpoint=None)
    try:
        matched = match_networks(base.model, simulated, match, seed=seed, progress=False)
    except FitError as refusal:
        yield from [refusal] * len(betas)
        return
    for beta in betas:
        try:
            yield around_match(matched, dataclasses.replace(method, beta=beta), seed=seed, progress=False)
        except FitError as refusal:
            yield refusal


def _widths(drawn: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    """(quantity,) widths of central 90% intervals; networks that diverge have no response."""
    return np.array([np.subtract(*np.nanquantile(drawn[name], [0.95, 0.05])) for name in names])


def _of_networks(base: ScaledProblem, z: np.ndarray, quantities: Quantities) -> dict[str, np.ndarray]:
    """The quantities of networks z (draw, coordinate)."""
    named = base.model.named(base.space.unwhiten(z), base.recording.dt)
    return {name: np.asarray(each) for name, each in quantities(Networks(base.model, named, base.recording)).items()}


def _session(base: ScaledProblem, random: np.random.Generator) -> tuple[np.ndarray, Recording]:
    """A network of the prior, whitened, and trials of it that are like the recording."""
    wanted = _root_mean_square(base.recording)
    for _ in range(MOST_TRIES):
        z = random.standard_normal(base.space.size)
        named = base.model.named(base.space.unwhiten(z), base.recording.dt)
        try:
            simulated = base.model.simulate(named, base.recording, seed=int(random.integers(2**32)))
        except ValueError:  # It diverges.
            continue
        if wanted / LIKE_FACTOR < _root_mean_square(simulated) < wanted * LIKE_FACTOR:
            return z, simulated
    raise argument_error(
        "model",
        "a prior with networks whose activity is like the recording's",
        f"none among {MOST_TRIES} with a root mean square within a factor of {LIKE_FACTOR:g}",
        "see diagnose(model, recording), and choose scales that suit",
    )


def _root_mean_square(recording: Recording) -> float:
    return float(np.sqrt(np.mean(recording.activity[recording.mask] ** 2)))
