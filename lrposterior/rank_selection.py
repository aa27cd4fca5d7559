"""Which rank do the data support? The evidence where it holds, held-out trials where it does not.

The evidence of a rank that is too small is finite and low. A rank that is too large is often singular: the last
singular value of W is not clearly above zero, Laplace's method does not hold, and `fit` gives no evidence or refuses
the rank. So an evidence may be missing above the true rank, and such a rank is compared by held-out density instead.
The burden of proof is on it: it is chosen only where it predicts held-out trials better by more than the standard error
of the difference.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm.auto import tqdm

from lrposterior.checks import argument_error, describe, require_instance, require_integer
from lrposterior.fit_error import FitError
from lrposterior.held_out import LARGEST_PARETO_K, HeldOutDensity, cross_validate, leave_one_out, make_folds
from lrposterior.inference.fit import Method, fit
from lrposterior.model import LowRankModel
from lrposterior.posterior import Posterior
from lrposterior.recording import Recording

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

EVIDENCE, HELD_OUT, ONLY_FIT = "evidence", "held-out density", "only rank that could be fitted"
# Differences of the log evidence below this are said to be small.
CLEAR_EVIDENCE = 3.0


@dataclass(frozen=True, eq=False)
class RankFit:
    """What became of one rank.

    Attributes:
        rank: the rank.
        failure: why the fit was refused, or None.
        log_evidence: log p(activity | rank) in nats, or None where the rank is singular (or not fitted).
        evidence_note: how it was computed, or why there is none.
        loo: PSIS-LOO over trials, whether it can be trusted or not; None for a single trial.
        held_out: what ranks are compared by: PSIS-LOO where it can be trusted at all ranks, else K-fold.
        held_out_note: what it is, or why there is none.
    """

    rank: int
    failure: str | None = None
    log_evidence: float | None = None
    evidence_note: str = ""
    loo: HeldOutDensity | None = None
    held_out: HeldOutDensity | None = None
    held_out_note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Numbers and text; None in place of what is not known or not finite. "elpd" is what ranks are compared by."""
        held_out, loo = self.held_out, self.loo
        return {
            "rank": self.rank,
            "failure": self.failure,
            "log_evidence": self.log_evidence,
            "evidence_note": self.evidence_note,
            "elpd": None if held_out is None else _finite(held_out.elpd),
            "elpd_standard_error": None if held_out is None else _finite(held_out.standard_error),
            "elpd_by": None if held_out is None else held_out.by,
            "held_out_note": self.held_out_note,
            "elpd_loo": None if loo is None else _finite(loo.elpd),
            "loo_standard_error": None if loo is None else _finite(loo.standard_error),
            "p_loo": None if loo is None else _finite(loo.effective_parameters),
            "largest_pareto_k": None if loo is None else _finite(loo.largest_pareto_k),
        }


@dataclass(frozen=True, eq=False, repr=False)
class RankSelection:
    """The rank that the data support, and the candidates beside it; made by `select_rank`.

    Attributes:
        rank: the chosen rank.
        criterion: "evidence", "held-out density", or "only rank that could be fitted".
        reason: why, in a sentence or two.
        fits: what became of every rank, in increasing order.
        posteriors: the posterior of every rank that could be fitted.
        seed: seed of the fits, the draws and the folds.
    """

    rank: int
    criterion: str
    reason: str
    fits: tuple[RankFit, ...]
    posteriors: Mapping[int, Posterior] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "posteriors", MappingProxyType(dict(self.posteriors)))

    @property
    def posterior(self) -> Posterior:
        """The posterior of the chosen rank."""
        return self.posteriors[self.rank]

    def __getitem__(self, rank: int) -> RankFit:
        """What became of one rank.

        Raises:
            KeyError: if it was no candidate.
        """
        for one in self.fits:
            if one.rank == rank:
                return one
        raise KeyError(rank)

    def to_dict(self) -> dict[str, Any]:
        """Numbers and text alone, without the posteriors; `json.dumps` takes it."""
        return {
            "rank": self.rank,
            "criterion": self.criterion,
            "reason": self.reason,
            "seed": self.seed,
            "fits": [one.to_dict() for one in self.fits],
        }

    def to_dataframe(self) -> pd.DataFrame:
        """The same with one row per rank: its index; NaN where there is no value."""
        import pandas as pd

        table = pd.DataFrame(self.to_dict()["fits"]).set_index("rank")
        numbers = [name for name in table if name not in ("failure", "evidence_note", "held_out_note", "elpd_by")]
        return table.astype(dict.fromkeys(numbers, float))

    def plot(self) -> Figure:
        """Draw evidence and held-out density against rank; see `lrposterior.plots.plot_rank_selection`."""
        from lrposterior.plots.rank import plot_rank_selection

        return plot_rank_selection(self)

    def __repr__(self) -> str:
        return f"RankSelection(rank {self.rank} of {[one.rank for one in self.fits]} by {self.criterion})"

    def __str__(self) -> str:
        lines = [repr(self), self.reason]
        lines.append("rank  log evidence  held-out density (se)       by     p_loo  largest k  note")
        lines += [_line(one, one.rank == self.rank) for one in self.fits]
        trusted = [one.loo.is_trusted for one in self.fits if one.loo is not None]
        if not all(trusted):
            lines.append(
                f"Pareto k above {LARGEST_PARETO_K}: PSIS-LOO, and with it p_loo, cannot be trusted there; ranks are "
                "compared by K-fold"
                if any(one.held_out is not None for one in self.fits)
                else f"Pareto k above {LARGEST_PARETO_K}: PSIS-LOO cannot be trusted, and ranks were not compared by it"
            )
        return "\n".join(lines)


def select_rank(
    model: LowRankModel,
    recording: Recording,
    ranks: Sequence[int] = (1, 2, 3, 4),
    *,
    seed: int,
    method: str | Method = "laplace",
    num_folds: int = 4,
    num_draws: int = 1000,
    progress: bool = True,
) -> RankSelection:
    """Fit several ranks and choose one.

    The rank with the highest evidence is chosen. Where the evidence of a rank is refused, because its last singular
    value is not clearly above zero, that rank takes its place only if it predicts held-out trials better by more than
    the standard error of the difference. If no rank has an evidence, all are compared in this way, from the smallest.

    The held-out density is PSIS-LOO over trials where all Pareto k are at most 0.7. With few and informative trials
    they are not, and every rank is fitted again without every fold of trials. The standard error is that over trials;
    with a handful of trials it is itself uncertain. Where the initial state is free, a held-out trial starts from the
    mean of the fitted initial latents.

    Args:
        model: the model; its own rank does not matter.
        recording: what to fit.
        ranks: the candidates.
        seed: seed of the fits, the draws and the folds.
        method: as in `fit`.
        num_folds: folds of trials where PSIS-LOO cannot be trusted, at most as many as trials; 0 spares these fits, and
            a rank without evidence is then not compared.
        num_draws: posterior draws for held-out densities.
        progress: show a progress bar.

    Raises:
        ValueError: if an argument is out of its range, or model and recording do not fit each other.
        FitError: if no rank could be fitted, or none has an evidence and held-out trials cannot be compared either.
    """
    require_instance(model, "model", LowRankModel)
    require_instance(recording, "recording", Recording)
    candidates = _ranks(ranks, recording.num_neurons)
    seed = require_integer(seed, "seed")
    if require_integer(num_folds, "num_folds") == 1:
        raise argument_error("num_folds", "0, or 2 and more", "1", "one fold leaves no trial to fit")
    require_integer(num_draws, "num_draws", minimum=100, mend="fewer draws say nothing about the tails")

    fits, posteriors = [], {}
    with tqdm(desc="ranks", total=len(candidates), unit="fit", disable=not progress) as bar:

        def refit(rank: int, trials: Recording) -> Posterior:
            bar.set_postfix_str(f"rank {rank}")
            try:
                return fit(dataclasses.replace(model, rank=rank), trials, method, seed=seed, progress=False)
            finally:
                bar.update()

        for rank in candidates:
            try:
                posterior = posteriors[rank] = refit(rank, recording)
            except FitError as failure:
                fits.append(RankFit(rank, str(failure), None, "no fit", held_out_note="no fit"))
                continue
            statistics = posterior.statistics
            loo = leave_one_out(posterior, num_draws=num_draws, seed=seed)
            fits.append(RankFit(rank, None, statistics.log_evidence, statistics.evidence_note, loo))
        if not posteriors:
            raise FitError(
                f"ranks: expected one that can be fitted, got none of {list(candidates)}; try lower ranks. The first "
                f"failed with: {fits[0].failure}"
            )
        if recording.num_trials < 2:
            fits = [_without(one, "a single trial: none to hold out") for one in fits]
        elif all(one.loo is not None and one.loo.is_trusted for one in fits if one.failure is None):
            fits = [
                one if one.failure else dataclasses.replace(one, held_out=one.loo, held_out_note="PSIS-LOO over trials")
                for one in fits
            ]
        elif not num_folds:
            fits = [_without(one, "PSIS-LOO cannot be trusted, and no folds were asked for") for one in fits]
        else:
            folds = make_folds(recording.num_trials, num_folds, seed=seed)
            bar.total = bar.n + len(posteriors) * len(folds)
            for index, one in enumerate(fits):
                if one.failure is None:
                    held_out, note = cross_validate(
                        lambda trials, rank=one.rank: refit(rank, trials),
                        recording,
                        folds,
                        num_draws=num_draws,
                        seed=seed,
                    )
                    fits[index] = dataclasses.replace(one, held_out=held_out, held_out_note=note)
    rank, criterion, reason = choose(fits)
    return RankSelection(rank, criterion, reason, tuple(fits), posteriors, seed)


def choose(fits: Sequence[RankFit]) -> tuple[int, str, str]:
    """(rank, criterion, reason) from what became of every rank, in increasing order.

    Raises:
        FitError: if no rank has an evidence, and several cannot be compared by held-out density.
    """
    fitted = [one for one in fits if one.failure is None]
    failed = [one.rank for one in fits if one.failure is not None]
    refused = f" Not fitted, and so not compared: {_list(failed)}." if failed else ""
    if len(fitted) == 1:
        only = fitted[0]
        singular = "" if only.log_evidence is not None else " It is singular too: read its intervals with caution."
        return only.rank, ONLY_FIT, f"Rank {only.rank} is the only candidate that could be fitted.{refused}{singular}"
    regular = {one.rank: one.log_evidence for one in fitted if one.log_evidence is not None}
    singular = [one for one in fitted if one.log_evidence is None]
    if regular:
        best = max(fitted, key=lambda one: regular.get(one.rank, -np.inf))
        others = sorted((rank for rank in regular if rank != best.rank), key=lambda rank: -regular[rank])
        reasons = [_by_evidence(best.rank, others, regular)]
    else:
        comparable = [one for one in singular if one.held_out is not None]
        if not comparable:
            raise FitError(
                f"ranks: expected one whose evidence holds or whose held-out density is known, got neither for "
                f"{_list([one.rank for one in singular])} ({singular[0].evidence_note}; {singular[0].held_out_note}); "
                "record more trials, set num_folds to 2 or more, or try lower ranks"
            )
        best, singular = comparable[0], [one for one in singular if one is not comparable[0]]
        reasons = [
            f"No rank has a last singular value clearly above zero, so that no evidence holds; rank {best.rank} is the "
            "smallest with a held-out density."
        ]
    chosen = best
    for one in singular:
        if one.held_out is None or chosen.held_out is None:
            missing = one if one.held_out is None else chosen
            reasons.append(f"Rank {one.rank} is not compared ({missing.held_out_note}).")
            continue
        gain, error = one.held_out.better_than(chosen.held_out)
        verdict = f"{_verdict(gain, error)} rank {chosen.rank} in held-out trials ({gain:+.1f} ± {error:.1f} nats)"
        reasons.append(f"Rank {one.rank} is singular and {verdict}.")
        if gain > error:
            chosen = one
    criterion = EVIDENCE if regular and chosen is best else HELD_OUT
    return chosen.rank, criterion, " ".join(reasons) + refused


def _by_evidence(best: int, others: Sequence[int], evidence: Mapping[int, float]) -> str:
    if not others:
        return f"Rank {best} is the only one whose evidence holds."
    lead = evidence[best] - evidence[others[0]]
    small = "" if lead >= CLEAR_EVIDENCE else ", which is little: look at both"
    return f"Rank {best} has the highest evidence, {lead:.1f} nats above rank {others[0]}{small}."


def _verdict(gain: float, error: float) -> str:
    if gain > error:
        return "predicts better than"
    return "predicts worse than" if gain < -error else "predicts no better than"


def _without(one: RankFit, note: str) -> RankFit:
    return one if one.failure else dataclasses.replace(one, held_out_note=note)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _list(ranks: Sequence[int]) -> str:
    return f"rank{'' if len(ranks) == 1 else 's'} " + ", ".join(map(str, ranks))


def _line(one: RankFit, is_chosen: bool) -> str:
    evidence = "-" if one.log_evidence is None else f"{one.log_evidence:.1f}"
    density = "-" if one.held_out is None else f"{one.held_out.elpd:.1f} ({one.held_out.standard_error:.1f})"
    by = "-" if one.held_out is None else one.held_out.by
    p, k = ("-", "-") if one.loo is None else (f"{one.loo.effective_parameters:.1f}", f"{one.loo.largest_pareto_k:.2f}")
    notes = [one.failure or ""] if one.failure else []
    if one.failure is None:
        notes += [one.evidence_note] * (one.log_evidence is None) + [one.held_out_note] * (one.held_out is None)
    mark = "*" if is_chosen else " "
    return f"{one.rank:3d} {mark}  {evidence:>12}  {density:>21}  {by:>7}  {p:>8}  {k:>9}  {'; '.join(notes)}".rstrip()


def _ranks(ranks: Any, num_neurons: int) -> tuple[int, ...]:
    """The candidates in increasing order.

    Raises:
        ValueError: none, one twice, or one that is not from 1 to the number of neurons.
    """
    expected = f"different integers from 1 to the {num_neurons} neurons"
    if isinstance(ranks, (str, bytes)) or not isinstance(ranks, (Sequence, range, np.ndarray)) or np.ndim(ranks) != 1:
        raise argument_error("ranks", expected, describe(ranks), "give a list, for example ranks=[1, 2, 3]")
    if not len(ranks):
        raise argument_error("ranks", expected, "none", "give a list, for example ranks=[1, 2, 3]")
    mend = "no network of these neurons has another rank"
    numbers = [require_integer(rank, "ranks", 1, num_neurons, mend) for rank in ranks]
    if len(set(numbers)) < len(numbers):
        repeated = next(rank for rank in numbers if numbers.count(rank) > 1)
        raise argument_error("ranks", expected, f"{repeated} {numbers.count(repeated)} times", "give each rank once")
    return tuple(sorted(numbers))
