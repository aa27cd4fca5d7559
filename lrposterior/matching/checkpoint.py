"""A fit that goes on where it was interrupted: the courses of its networks between two epochs, in one `.npz` file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lrposterior.checks import argument_error
from lrposterior.files import replacing
from lrposterior.matching.course import Course
from lrposterior.matching.problem import MatchingProblem
from lrposterior.npz_files import read_npz

FINGERPRINT = "fingerprint"


def fingerprint(matching: MatchingProblem) -> str:
    """A digest of all that decides where a course goes; how long it goes is not in it."""
    schedule = (matching.schedule.warm_up, matching.schedule.ramp)
    settings = repr((matching.model.structure, matching.weights, schedule, matching.batch_size, matching.seed))
    digest = hashlib.sha256(settings.encode())
    for leaf in jax.tree.leaves((matching.space, matching.trials, matching.validation, matching.rates)):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{array.dtype} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def save_courses(path: Path, matching: MatchingProblem, courses: Sequence[Course]) -> None:
    """Write the courses of all networks that were begun; the file appears complete or not at all."""
    arrays: dict[str, Any] = {FINGERPRINT: np.asarray(fingerprint(matching))}
    for network, course in enumerate(courses):
        arrays |= {f"{network} {place}": np.asarray(leaf) for place, leaf in enumerate(_leaves(course))}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def load_courses(path: Path, matching: MatchingProblem) -> list[Course]:
    """Read what `save_courses` wrote, to the bit; none where there is no file.

    Raises:
        ValueError: if the file is no checkpoint, or that of another fit.
    """
    if not path.exists():
        return []
    expected, mend = "a checkpoint of this fit", "name another file, or remove this one to begin anew"
    arrays = read_npz(path, "checkpoint", expected, mend, (FINGERPRINT,))
    if str(arrays[FINGERPRINT]) != fingerprint(matching):
        got = f"{path.name!r} of another recording, model, seed or loss"
        raise argument_error("checkpoint", expected, got, mend)
    like = Course.at(np.zeros(matching.space.size))
    number = len(_leaves(like))
    return [
        _course([arrays[f"{network} {place}"] for place in range(number)], like)
        for network in range((len(arrays) - 1) // number)
    ]


def _leaves(course: Course) -> list[Any]:
    numbers = [course.epoch, course.best, course.validation, course.loss, course.stale]
    return [*numbers, *jax.tree.leaves(course.state)]


def _course(leaves: list[np.ndarray], like: Course) -> Course:
    epoch, best, validation, loss, stale, *of_state = leaves
    state = jax.tree.unflatten(jax.tree.structure(like.state), [jnp.asarray(leaf) for leaf in of_state])
    return Course(state, int(epoch), best, float(validation), float(loss), int(stale))
