"""A small recording that has everything that a recording may have."""

import numpy as np

from lrposterior.recording import Recording

TRIALS, BINS, NEURONS, INPUTS = 6, 8, 4, 2
ARRAYS = ("activity", "inputs", "stimulation", "mask")
LABELS = ("neuron_labels", "cell_types", "trial_labels", "session_labels")


def make_recording(**changes):
    generator = np.random.default_rng(0)
    shape = (TRIALS, BINS, NEURONS)
    arguments = {
        "activity": generator.standard_normal(shape),
        "dt": 0.01,
        "inputs": generator.standard_normal((TRIALS, BINS, INPUTS)),
        "stimulation": generator.standard_normal(shape),
        "mask": generator.random(shape) < 0.9,
        "neuron_labels": ["a1", "a2", "b1", "b2"],
        "cell_types": ["E", "E", "I", "E"],
        "trial_labels": ["left", "right"] * 3,
        "session_labels": ["monday"] * 2 + ["tuesday"] * 4,
    }
    return Recording(**(arguments | changes))


def assert_same(one, other):
    assert one.dt == other.dt
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    for name in LABELS:
        assert getattr(one, name) == getattr(other, name)
