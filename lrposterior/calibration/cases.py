"""The predicted response to one perturbation beside the true one, and beside each of its own draws.

Every score is computed twice by the same formulae: for the truth, against all draws; and for every draw in the place of
the truth, against the other draws. The second is what the score would be if the posterior were right.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np

from lrposterior.calibration.ranks import LEVELS, central_coverage, rank_ecdf

COVERAGE_LEVELS = (0.5, 0.8, 0.9, 0.95)
# Entries whose draws are sorted at once, so that what is sorted stays near 10 MB.
SORTED_AT_ONCE = 2**20


class Cases(NamedTuple):
    """What scores are made of; a case is the truth, or a draw in its place. All (case, candidate).

    Attributes:
        error: |q - E q|².
        power: |q|².
        expected_power: E |q|².
        spread: tr Cov q.
        expected_r2: |E q|² / E |q|², as in `PerturbationRanking.expected_r2`.
        crps: continuous ranked probability score, mean over the entries of the response.
        energy: energy score.
        coverage: (case, candidate, level) share of the entries in their central intervals.
    """

    error: np.ndarray
    power: np.ndarray
    expected_power: np.ndarray
    spread: np.ndarray
    expected_r2: np.ndarray
    crps: np.ndarray
    energy: np.ndarray
    coverage: np.ndarray

    @property
    def achieved_r2(self) -> np.ndarray:
        """1 - |q - E q|² / |q|², against the prediction "no response"; -inf where there is none."""
        with np.errstate(divide="ignore"):
            return 1.0 - self.error / self.power

    def of(self, candidates: np.ndarray) -> Self:
        """The cases of some candidates."""
        return self._make(values[:, candidates] for values in self)


class Comparison(NamedTuple):
    """One candidate.

    Attributes:
        truth: one case, one candidate.
        draws: a case for every draw, one candidate.
        pit: (level,) distribution function of the ranks of the true entries.
        draw_pits: (draw, level) the same for every draw.
    """

    truth: Cases
    draws: Cases
    pit: np.ndarray
    draw_pits: np.ndarray


def compare(draws: np.ndarray, truth: np.ndarray) -> Comparison:
    """Compare draws (draw, entry) with the truth (entry,).

    Energy score and CRPS take their spread term without bias, over pairs of different draws (Gneiting and Raftery 2007,
    doi:10.1198/016214506000001437; Ferro 2014, doi:10.1002/qj.2270), so that they do not depend on the number of draws
    in expectation.
    """
    num_draws = len(draws)
    mean = draws.mean(axis=0)
    centred, missed = draws - mean, truth - mean
    gram, along_mean = centred @ centred.T, centred @ mean
    squares, power_of_mean, others = np.diag(gram).copy(), float(mean @ mean), num_draws - 1
    # Without draw i the mean is m - c_i / (S - 1), and the sum of squares about it is less by S / (S - 1) |c_i|².
    rest = power_of_mean - 2.0 * along_mean / others + squares / others**2
    spread = (squares.sum() - squares * num_draws / others) / (others - 1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2.0 * gram, 0.0))
    to_truth = np.sqrt(np.maximum(squares + missed @ missed - 2.0 * centred @ missed, 0.0))
    true_energy, energies = _spread_scores(to_truth.sum(), distances.sum(axis=1))
    ranked = _compare_entries(draws, truth)
    true_case = _cases(
        missed @ missed, truth @ truth, power_of_mean, squares.sum() / others, num_draws,
        ranked.crps, true_energy, ranked.pit[None],
    )  # fmt: skip
    draw_cases = _cases(
        squares * (num_draws / others) ** 2, power_of_mean + 2.0 * along_mean + squares, rest, spread, others,
        ranked.draw_crps, energies, ranked.draw_pits,
    )  # fmt: skip
    return Comparison(true_case, draw_cases, ranked.pit, ranked.draw_pits)


def _cases(
    error: np.ndarray,
    power: np.ndarray,
    power_of_mean: np.ndarray | float,
    spread: np.ndarray,
    num_draws: int,
    crps: np.ndarray | float,
    energy: np.ndarray | float,
    pit: np.ndarray,
) -> Cases:
    # |m|² of a mean of S draws is too large by tr Cov / S on average.
    mean_power = power_of_mean - spread / num_draws
    signal = np.maximum(mean_power, 0.0)
    coverage = np.stack([central_coverage(pit, level) for level in COVERAGE_LEVELS], axis=-1)
    values = (error, power, mean_power + spread, spread, signal / (signal + spread), crps, energy)
    return Cases(*(np.reshape(value, (-1, 1)) for value in values), coverage=coverage[:, None])


class _Ranked(NamedTuple):
    crps: float
    draw_crps: np.ndarray
    pit: np.ndarray
    draw_pits: np.ndarray


def _compare_entries(draws: np.ndarray, truth: np.ndarray) -> _Ranked:
    """What is about single entries: CRPS and ranks. Entries where nothing ever happens do not count."""
    num_draws = len(draws)
    moving = np.flatnonzero((truth != 0.0) | (draws != 0.0).any(axis=0))
    to_truth, to_draws = 0.0, np.zeros(num_draws)
    pit, draw_pits = np.zeros(len(LEVELS)), np.zeros((num_draws, len(LEVELS)))
    step = max(1, SORTED_AT_ONCE // num_draws)
    for start in range(0, len(moving), step):
        entries = moving[start : start + step]
        values, true = np.ascontiguousarray(draws[:, entries].T), truth[entries, None]
        first = np.count_nonzero(values < true, axis=1)
        after = first + np.count_nonzero(values == true, axis=1) + 1
        pit += len(entries) * rank_ecdf(first, after, num_draws + 1, np.zeros_like(first), 1)[0]
        to_truth += np.abs(values - true).sum()
        order = np.argsort(values, axis=1)
        values = np.take_along_axis(values, order, axis=1)
        # sum_j |x_k - x_j| of sorted values: those below come before, those above after.
        place, below = np.arange(num_draws), np.cumsum(values, axis=1)
        distances = (2 * place + 2 - num_draws) * values + below[:, -1:] - 2.0 * below
        to_draws += np.bincount(order.ravel(), distances.ravel(), num_draws)
        draw_pits += len(entries) * rank_ecdf(*_runs(values), num_draws, order, num_draws)
    crps, draw_crps = _spread_scores(to_truth, to_draws)
    count = len(moving)
    return _Ranked(crps / count, draw_crps / count, pit / count, draw_pits / count)


def _runs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the run of equal values begins, and where the next begins, of rows that are sorted."""
    num = values.shape[1]
    new = np.ones((len(values), num + 1), dtype=bool)
    new[:, 1:-1] = values[:, 1:] != values[:, :-1]
    place = np.arange(num + 1)
    first = np.maximum.accumulate(np.where(new, place, 0), axis=1)[:, :-1]
    after = np.minimum.accumulate(np.where(new, place, num)[:, :0:-1], axis=1)[:, ::-1]
    return first, after


def _spread_scores(to_truth: float, to_draws: np.ndarray) -> tuple[float, np.ndarray]:
    """E|x - y| - 1/2 E|x - x'|: of the truth, and of every draw against the others.

    Args:
        to_truth: sum over draws of |x - y|.
        to_draws: (draw,) sum over draws of |x_i - x|.
    """
    num, pairs = len(to_draws), 0.5 * to_draws.sum()
    truth = to_truth / num - pairs / (num * (num - 1))
    draws = to_draws / (num - 1) - (pairs - to_draws) / ((num - 1) * (num - 2))
    return float(truth), draws
