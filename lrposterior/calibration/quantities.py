"""What is ranked in simulation-based calibration: functions of a network that do not know of a gauge.

The entries of M and K mean nothing by themselves, (M A, K A^-T) being the same W, and their ranks mean nothing either.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from lrposterior.connectivity import LowRankConnectivity, connectivity_draws
from lrposterior.likelihood import log_likelihood
from lrposterior.model import LowRankModel
from lrposterior.precision import double_precision
from lrposterior.recording import Recording
from lrposterior.rollouts import simulate_draws, simulate_each

# In units of current; the onset and the lengths are parts of the trial.
STIMULUS, ONSET, DURATION, WINDOW = 2.0, 1 / 3, 1 / 12, 1 / 4
FEWEST_NEURONS, FEWEST_BINS, MOST_STIMULATED = 3, 12, 4


@dataclass(frozen=True, eq=False)
class Networks:
    """Draws of a posterior, or the one true network, and the recording that was fitted.

    Attributes:
        model: the model, settled on the recording.
        parameters: parameters by name with a leading draw axis, as `Posterior.sample_parameters` gives them.
        recording: what was fitted.
    """

    model: LowRankModel
    parameters: Mapping[str, np.ndarray]
    recording: Recording

    @property
    def connectivity(self) -> LowRankConnectivity:
        """W of every draw."""
        return connectivity_draws(self.parameters, self.model.background, self_connections=self.model.self_connections)

    def rates(self, trials: Recording) -> np.ndarray:
        """(draw, trial, time, neuron) noise-free rates under the inputs and the stimulation of some trials."""
        return simulate_draws(self.model, self.parameters, trials, quantity="rate")

    @double_precision
    def log_likelihood(self) -> np.ndarray:
        """(draw,) log p(recording | parameters) in nats."""
        return np.asarray(simulate_each(log_likelihood, self.model, self.parameters, self.recording))


Quantities = Callable[[Networks], Mapping[str, np.ndarray]]


def gauge_invariant_quantities(networks: Networks) -> dict[str, np.ndarray]:
    """The quantities that are ranked where none are named, (draw,) each.

    - two entries of W, one of them on the diagonal, and the Frobenius norm of W;
    - the modulus and the real part of the eigenvalue of largest modulus, and the modulus of the next one;
    - the response to a stimulation of a twelfth of the first trial from its third on, averaged over a quarter of it: of
      one neuron to another one, of one neuron to an ensemble of others (four, or half of them if these are less), and
      of the mean over the neurons outside the ensemble;
    - the log likelihood of the recording: it tells in how many directions the posterior is as wide as it should be, and
      as a function of the data too it finds a posterior that has not learned from them (Modrák et al. 2023,
      doi:10.1214/23-BA1404).
    """
    W = networks.connectivity
    entries = W.entries([0, 2], [1, 2])
    eigenvalues = W.eigenvalues()
    found = {
        "W[0, 1]": entries[:, 0],
        "W[2, 2]": entries[:, 1],
        "norm of W": np.linalg.norm(W.singular_values(), axis=1),
        "modulus 1": np.abs(eigenvalues[:, 0]),
        "real part 1": np.real(eigenvalues[:, 0]),
    }
    if eigenvalues.shape[1] > 1:
        found["modulus 2"] = np.abs(eigenvalues[:, 1])
    return found | _responses(networks) | {"log likelihood": networks.log_likelihood()}


def _responses(networks: Networks) -> dict[str, np.ndarray]:
    recording = networks.recording
    _, num_bins, num_neurons = recording.activity.shape
    several = min(MOST_STIMULATED, num_neurons // 2)
    reader = min(several + 1, num_neurons - 1)
    onset, duration, window = (int(part * num_bins) for part in (ONSET, DURATION, WINDOW))
    unit = 1.0 if networks.model.priors.unit is None else networks.model.priors.unit
    # One trial, three times: as it was, with one neuron stimulated, with several.
    stimulation = np.zeros((3, num_bins, num_neurons))
    stimulation[1, onset : onset + duration, :1] = STIMULUS * unit
    stimulation[2, onset : onset + duration, :several] = STIMULUS * unit
    trials = Recording(
        np.zeros_like(stimulation),
        recording.dt,
        inputs=np.repeat(recording.inputs[:1], 3, axis=0),
        stimulation=stimulation,
        cell_types=recording.cell_types,
    )
    rates = _from_one_start(networks).rates(trials)[:, :, onset : onset + window].mean(axis=2)
    one, ensemble = rates[:, 1] - rates[:, 0], rates[:, 2] - rates[:, 0]
    return {
        "one to one": one[:, reader],
        "several to one": ensemble[:, reader],
        "several to others": ensemble[:, several:].mean(axis=1),
    }


def _from_one_start(networks: Networks) -> Networks:
    """The networks with the initial latents of the first trial alone, where they are free: all trials take them."""
    initial = networks.parameters.get("initial_kappa")
    if initial is None:
        return networks
    return dataclasses.replace(networks, parameters={**networks.parameters, "initial_kappa": initial[:, :1]})
