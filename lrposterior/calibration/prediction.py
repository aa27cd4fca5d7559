"""Score predicted responses against true ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from lrposterior.calibration.cases import Cases, Comparison, compare
from lrposterior.calibration.prediction_scores import ALL, PredictionScores
from lrposterior.calibration.ranks import LEVELS
from lrposterior.calibration.summary import summarise
from lrposterior.checks import argument_error, as_labels, require_integer

FEWEST_DRAWS = 20


def score_predictions(
    draws: Any,
    truth: Any,
    *,
    classes: Any = None,
    clusters: Any = None,
    labels: Any = None,
    seed: int,
) -> PredictionScores:
    """Score predicted responses to perturbations against the true ones.

    Every score stands beside its ceiling, the same score with draws of the posterior in the place of the truth, and
    beside what it is when the candidates are ordered at random. The unit of resampling is the candidate (or a cluster
    of them), never the time bin. Draw s of all candidates has to be one and the same network, as in
    `predict_responses` with one seed: the ceiling of the scores that compare candidates rests on it.

    Candidates are worked through one at a time, each in double precision; of the draws nothing is copied but these.

    Args:
        draws: (draw, candidate, ...) predicted responses, as `predict_responses` gives them; or an iterable of such
            arrays, each with the next few candidates, for instance a generator that predicts ten at a time.
        truth: (candidate, ...) the true responses.
        classes: one class per candidate, for instance "random" or "latent". Every score is given for all candidates
            and for every class.
        clusters: one label per candidate (a string or an integer): candidates that are resampled together, for instance
            the same pattern at several powers. None takes every candidate on its own.
        labels: one name per candidate.
        seed: of the resampling and the shuffling.

    Raises:
        ValueError: if shapes do not fit, something is not finite, there are less than 20 draws, or a candidate whose
            draws are all the same.
    """
    true = np.asarray(truth)
    if true.ndim < 2 or not len(true) or true.dtype.kind not in "iuf":
        got = f"an array of shape {true.shape} and type {true.dtype}"
        raise argument_error(
            "truth", "numbers with axes (candidate, ...)", got, "stack the responses of the candidates"
        )
    count = len(true)
    names = tuple(f"candidate {index}" for index in range(count)) if labels is None else labels
    names = as_labels(names, "labels", "candidate", count)
    kinds = as_labels((ALL,) * count if classes is None else classes, "classes", "candidate", count)
    if classes is not None and ALL in kinds:
        raise argument_error("classes", f"names other than {ALL!r}, which stands for all of them", ALL, "rename it")
    members = _clusters(clusters, count)
    seed = require_integer(seed, "seed")
    groups = _groups(kinds)
    pits, draw_pits = np.zeros((len(groups), len(LEVELS))), np.zeros((0, 0, 0))
    truths, predicted = [], []
    for row, one in enumerate(_compare(draws, true, names)):
        truths.append(one.truth)
        predicted.append(one.draws)
        if not row:
            draw_pits = np.zeros((len(groups), *one.draw_pits.shape))
        for index, rows in enumerate(groups.values()):
            if row in rows:
                pits[index] += one.pit / len(rows)
                draw_pits[index] += one.draw_pits / len(rows)
    of_truth, of_draws = _stack(truths), _stack(predicted)
    summary = {
        name: summarise(of_truth.of(rows), of_draws.of(rows), members[rows], np.random.default_rng([seed, index]))
        for index, (name, rows) in enumerate(groups.items())
    }
    return PredictionScores(
        labels=names,
        classes=kinds,
        clusters=members,
        num_draws=len(of_draws.power),
        truth=of_truth,
        draws=of_draws,
        pits=pits,
        draw_pits=draw_pits,
        summary=summary,
    )


def _groups(classes: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The candidates of "all", and of every class where there are several."""
    groups, kinds = {ALL: np.arange(len(classes))}, dict.fromkeys(classes)
    if len(kinds) > 1:
        groups |= {kind: np.flatnonzero([one == kind for one in classes]) for kind in kinds}
    return groups


def _stack(cases: list[Cases]) -> Cases:
    """The cases of single candidates side by side."""
    return Cases(*(np.concatenate(values, axis=1) for values in zip(*cases, strict=True)))


def _compare(draws: Any, truth: np.ndarray, labels: tuple[str, ...]) -> Iterator[Comparison]:
    done, num_draws = 0, None
    for chunk in _chunks(draws):
        fits = chunk.ndim == truth.ndim + 1 and chunk.shape[2:] == truth.shape[1:] and chunk.dtype.kind in "iuf"
        if not fits or num_draws not in (None, len(chunk)) or done + chunk.shape[1] > len(truth):
            wanted = ", ".join(str(size) for size in truth.shape[1:])
            raise argument_error(
                "draws",
                f"numbers of shape (draw, candidate, {wanted}), {len(truth)} candidates in all, as truth has",
                f"an array of shape {chunk.shape}" + (f" after {done} candidates" if done else ""),
                "predict with the conditions and the window of the truth, and the same number of draws",
            )
        num_draws = require_integer(
            len(chunk), "number of draws", FEWEST_DRAWS, mend="intervals and ceilings need some, better 300"
        )
        for index in range(chunk.shape[1]):
            yield _compare_one(chunk[:, index], truth[done], labels[done])
            done += 1
    if done < len(truth):
        raise argument_error("draws", f"{len(truth)} candidates, as truth has", f"{done}", "predict all of them")


def _chunks(draws: Any) -> Iterator[np.ndarray]:
    if hasattr(draws, "shape"):
        yield np.asarray(draws)
        return
    if not isinstance(draws, Iterable):
        got = type(draws).__name__
        raise argument_error("draws", "an array or an iterable of arrays", got, "pass what predict_responses returned")
    for chunk in draws:
        yield np.asarray(chunk)


def _compare_one(draws: np.ndarray, truth: np.ndarray, label: str) -> Comparison:
    flat = draws.reshape(len(draws), -1).astype(np.float64, copy=False)
    true = truth.reshape(-1).astype(np.float64, copy=False)
    for name, values in (("draws", flat), ("truth", true)):
        if not np.isfinite(values).all():
            got = f"NaN or infinity for {label!r}"
            raise argument_error(name, "finite responses", got, "leave out candidates under which a network diverges")
    if (flat == flat[0]).all():
        raise argument_error(
            "draws",
            "responses that differ between draws",
            f"the same response in all draws for {label!r}",
            "leave this candidate out: nothing is uncertain about it",
        )
    return compare(flat, true)


def _clusters(clusters: Any, count: int) -> np.ndarray:
    """(candidate,) an index for every cluster."""
    if clusters is None:
        return np.arange(count)
    given = np.asarray(clusters)
    if given.shape != (count,) or given.dtype.kind not in "iuU":
        got = f"an array of shape {given.shape} and type {given.dtype}"
        raise argument_error("clusters", f"{count} strings or integers", got, "give every candidate its cluster")
    return np.unique(given, return_inverse=True)[1]
