"""What a diagnosis is, and how it reads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lrposterior.diagnosis.networks import NetworkStatistics
from lrposterior.diagnosis.recorded import DataStatistics, InputStatistics
from lrposterior.diagnosis.verdicts import Generalisation, Verdict

# Widths; columns are wider where an entry is, and two spaces apart.
LABEL, COLUMN, INPUT_COLUMN = 28, 19, 10


@dataclass(frozen=True, eq=False, repr=False)
class Diagnosis:
    """A recording, its inputs, networks before and after a fit, and the defects that have a name.

    Attributes:
        size: trials, bins, neurons and inputs of the recording.
        data: statistics of the activity.
        inputs: statistics of the inputs.
        untrained: of networks drawn from the prior.
        trained: of the network at the mode of a posterior, or None.
        generalisation: how well that predicts fitted and held-out trials, or None.
        verdicts: the defects that were found; empty where there are none.
    """

    size: tuple[int, int, int, int]
    data: DataStatistics
    inputs: InputStatistics
    untrained: NetworkStatistics
    trained: NetworkStatistics | None
    generalisation: Generalisation | None
    verdicts: tuple[Verdict, ...]

    def __repr__(self) -> str:
        trials, bins, neurons, inputs = self.size
        return "\n".join(
            [
                f"Diagnosis: {trials} trials of {bins} bins, {neurons} neurons, {inputs} inputs",
                *self._table(),
                *self._of_data(),
                *self._of_inputs(),
                *(["verdicts"] if self.verdicts else ["verdicts: none"]),
                *(f"  {verdict}" for verdict in self.verdicts),
            ]
        )

    def _table(self) -> list[str]:
        networks = [network for network in (self.untrained, self.trained) if network is not None]
        signal = self.data.signal
        rows: list[tuple[str, str, list[str]]] = [
            (
                f"mean activity ({self.data.unit})",
                _number(signal.level),
                [_number(network.signal.level) for network in networks],
            ),
            ("  without inputs", "", [_number(network.level_without_inputs) for network in networks]),
            ("  under 10 times the inputs", "", [_number(network.level_of_tenfold_inputs) for network in networks]),
            (
                "temporal sd of averages",
                _number(signal.temporal_sd),
                [_number(network.signal.temporal_sd) for network in networks],
            ),
            (
                "modulation, of the mean",
                _number(signal.modulation),
                [_number(network.input_modulation) for network in networks],
            ),
            ("spectral radius", "", [_number(network.spectral_radius) for network in networks]),
            ("networks that run away", "", [f"{network.share_diverging:.0%}" for network in networks]),
        ]
        for name in self.untrained.weights:
            ranges = [network.weights[name] for network in networks]
            entries = [f"{_number(each.lowest)} to {_number(each.highest)}" for each in ranges]
            rows.append((f"weights {name}", "", entries))
        if self.generalisation is not None:
            shares = f"{self.generalisation.fitted:.1%}, {self.generalisation.held_out:.1%}"
            rows.append(("explained: fitted, held out", "", ["", shares]))
        header = ("", "recorded", ["untrained", "trained"][: len(networks)])
        lines = [(label, [recorded, *own]) for label, recorded, own in (header, *rows)]
        widths = [max(COLUMN, 2 + max(map(len, column))) for column in zip(*(line[1] for line in lines), strict=True)]
        return [_row(label, entries, widths) for label, entries in lines]

    def _of_data(self) -> list[str]:
        means, outliers = self.data.neuron_means, len(self.data.outliers)
        return [
            f"neurons: {_number(np.nanmin(means))} to {_number(np.nanmax(means))} {self.data.unit} on average, "
            f"{self.data.num_silent} silent; {outliers} outliers, largest entry {self.data.largest:.4g}"
        ]

    def _of_inputs(self) -> list[str]:
        inputs, columns = self.inputs, ("mean", "sd", "lowest", "highest", "share_on")
        if not len(inputs.mean):
            return []
        lines = ["inputs" + "".join(f"{name.replace('_', ' '):>{INPUT_COLUMN}}" for name in columns)]
        for index in range(len(inputs.mean)):
            notes = ["constant"] if index in inputs.constant else []
            notes += [f"like input {one}" for one, other in inputs.duplicates if other == index]
            numbers = "".join(f"{_number(getattr(inputs, name)[index]):>{INPUT_COLUMN}}" for name in columns)
            lines.append(f"{index:>6}{numbers}  {', '.join(notes)}".rstrip())
        return lines


def _row(label: str, entries: list[str], widths: list[int]) -> str:
    columns = (f"{entry:>{width}}" for entry, width in zip(entries, widths, strict=True))
    return (f"  {label:<{LABEL}}" + "".join(columns)).rstrip()


def _number(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.3g}"
