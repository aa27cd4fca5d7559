"""Posteriors as NetCDF files: named arrays, the configuration as JSON, nothing pickled.

    /              mode_coordinates; as attributes: format, format_version, package_version, configuration (JSON)
    /recording     the arguments of `Recording`
    /statistics    the fields of `FitStatistics`
    /distribution  the posterior's distribution (`lrposterior.distribution_arrays`); of a mixture the locations
                   (component, coordinate), the scales side by side, and how many columns are each component's
    /background    where the model has one with arrays. Known W0: dense as W0 (post, pre), sparse as value, post, pre
                   (entry,), factors as left, right (neuron, dimension). Random bulk: subspace (neuron, dimension)

Classes are named through the registries below, never by an import path. What is None or empty is left out.

Behind the end of the NetCDF file, where its readers do not look, stands a digest of all that comes before. So a file
with a hole (zeros after a crash, or of a copy cut off) is refused, where HDF5 alone would read zeros or never return.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import scipy.sparse

from lrposterior.background import FixedBackground, RandomBulk
from lrposterior.checks import argument_error
from lrposterior.distribution_arrays import (
    DISTRIBUTION_AXES,
    DISTRIBUTIONS,
    Axes,
    distribution_arrays,
    distribution_of,
    fields_of,
)
from lrposterior.drift import SessionDrift
from lrposterior.files import require_file
from lrposterior.model import LowRankModel
from lrposterior.observations import (
    CalciumObservation,
    GaussianObservation,
    NegativeBinomialObservation,
    PoissonObservation,
    SpikeRateObservation,
)
from lrposterior.populations import ByCellType
from lrposterior.posterior import FitStatistics, Posterior
from lrposterior.priors import CorrelatedLoadings, DaleLoadings, Priors, ScalePrior, TimeConstantPrior
from lrposterior.process_noise import ProcessNoise
from lrposterior.recording import Recording
from lrposterior.signed_background import SignedBackground
from lrposterior.time_constants import PerNeuron

if TYPE_CHECKING:
    import xarray as xr

FORMAT = "lrposterior posterior"
FORMAT_VERSION = 1
SEAL = b"\nlrposterior sha256\n"
MEGABYTE = 2**20
SIGNATURE = b"\x89HDF\r\n\x1a\n"

# Classes of which every field is a number, a string, None, another such class or a tuple of these: they become JSON.
CONFIGURATIONS: dict[str, type] = {
    "LowRankModel": LowRankModel,
    "GaussianObservation": GaussianObservation,
    "SpikeRateObservation": SpikeRateObservation,
    "PoissonObservation": PoissonObservation,
    "NegativeBinomialObservation": NegativeBinomialObservation,
    "CalciumObservation": CalciumObservation,
    "Priors": Priors,
    "CorrelatedLoadings": CorrelatedLoadings,
    "DaleLoadings": DaleLoadings,
    "ScalePrior": ScalePrior,
    "TimeConstantPrior": TimeConstantPrior,
    "SignedBackground": SignedBackground,
    "ByCellType": ByCellType,
    "PerNeuron": PerNeuron,
    "SessionDrift": SessionDrift,
}

# Classes that hold arrays: W0 or the subspace.
BACKGROUNDS: dict[str, type] = {"FixedBackground": FixedBackground, "RandomBulk": RandomBulk}

RECORDING_AXES: Axes = {
    "activity": ("trial", "time", "neuron"),
    "dt": (),
    "inputs": ("trial", "time", "input"),
    "stimulation": ("trial", "time", "neuron"),
    "mask": ("trial", "time", "neuron"),
    "neuron_labels": ("neuron",),
    "cell_types": ("neuron",),
    "trial_labels": ("trial",),
    "session_labels": ("trial",),
}

STATISTICS_AXES: Axes = {
    "objective": (),
    "gradient_norm": (),
    "decrement": (),
    "num_iterations": (),
    "wall_time": (),
    "log_evidence": (),
    "regression_ahead": (),
    "mode_objectives": ("mode",),
    "mode_log_evidences": ("mode",),
    "mode_counts": ("mode",),
    "num_failed_starts": (),
    "elbo": ("step",),
    "training_loss": ("network",),
    "validation_loss": ("network",),
    "diagnostic_names": ("diagnostic",),
    "diagnostic_values": ("diagnostic",),
    "scale_names": ("scale",),
    "scale_values": ("scale", "moment"),
}

BACKGROUND_AXES: Axes = {
    "W0": ("post", "pre"),
    "value": ("entry",),
    "post": ("entry",),
    "pre": ("entry",),
    "left": ("neuron", "dimension"),
    "right": ("neuron", "dimension"),
    "subspace": ("neuron", "dimension"),
}

UNITS = {"dt": "s", "wall_time": "s"}


def save_posterior(posterior: Posterior, path: str | os.PathLike[str]) -> None:
    """Write a posterior to a NetCDF file; `load_posterior` gives back the same one, to the bit.

    The file appears complete or not at all: it is written beside its place, brought to the disk and moved there. An old
    file of this name stays as it was until then.

    Args:
        posterior: what a fit returned.
        path: name of the file, ending in ``.nc``.

    Raises:
        ValueError: if the name ends otherwise, its folder does not exist, it is a folder itself, or the model holds an
            object of a class that the format does not know.
        OSError: if the file cannot be written, for example on a full disk.
    """
    target = Path(path)
    if target.suffix != ".nc":
        raise argument_error("path", "a file name that ends in .nc", repr(target.name), "add .nc")
    if not target.parent.is_dir():
        raise argument_error("path", "a folder that exists", repr(str(target.parent)), "make the folder first")
    if target.is_dir():
        raise argument_error("path", "the name of a file", f"the folder {str(target)!r}", "choose another name")
    groups = _groups(posterior)
    with _replacing(target) as temporary:
        for name, dataset in groups.items():
            dataset.to_netcdf(
                temporary,
                mode="w" if name == "/" else "a",
                group=name,
                engine="h5netcdf",
                encoding={variable: _encoding(values) for variable, values in dataset.variables.items()},
            )


def load_posterior(path: str | os.PathLike[str]) -> Posterior:
    """Read a posterior that `Posterior.save` wrote.

    Its draws are the same as those of the one that was saved, to the bit, for the same seed.

    Args:
        path: name of the file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is a file of another kind, cut short, damaged, or written by a later format version.
    """
    source = require_file(path, "path", "a posterior")
    _require_intact(source)
    root = _read(source, "/")
    version = int(root.attrs["format_version"])
    if version > FORMAT_VERSION:
        raise _refusal(
            source,
            f"in format version {version} of lrposterior {root.attrs['package_version']}",
            f"this is lrposterior {package_version()}, which reads up to version {FORMAT_VERSION}: upgrade it",
        )
    try:
        return _posterior(source, root)
    except (KeyError, OSError, TypeError, ValueError) as error:
        raise _refusal(source, f"whose contents do not fit ({error})", "fit and save again") from error


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A temporary name beside the target. What is written there is sealed and takes the target's place."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        _seal(temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _seal(path: Path) -> None:
    """Append the digest of a file, and wait until all of it is on the disk."""
    with path.open("rb+") as file:
        digest = _digest(file, path.stat().st_size)
        file.seek(0, os.SEEK_END)
        file.write(SEAL + digest)
        file.flush()
        os.fsync(file.fileno())


def _digest(file: BinaryIO, size: int) -> bytes:
    """SHA-256 of the first bytes of a file."""
    digest = hashlib.sha256()
    file.seek(0)
    for start in range(0, size, MEGABYTE):
        digest.update(file.read(min(MEGABYTE, size - start)))
    return digest.digest()


# ------------------------------------------------------------------------------------------------------------- writing


def _groups(posterior: Posterior) -> dict[str, xr.Dataset]:
    """The datasets of a file by the names of their groups, the root first."""
    model, distribution, statistics = posterior.model, posterior.distribution, posterior.statistics
    kind = _name(distribution, DISTRIBUTIONS)
    known = model.background if isinstance(model.background, SignedBackground) else None
    configuration: dict[str, Any] = {
        "method": posterior.method,
        "seed": int(posterior.seed),
        "status": posterior.status,
        "model": _encode(dataclasses.replace(model, background=known, process_noise=None)),
        "background": None,
        "distribution": kind,
        "scale_priors": {name: _encode(prior) for name, prior in posterior.scale_priors.items()},
    }
    noise = model.noise_of_process
    if noise is not None:
        configuration["process_noise"] = {"shape": noise.shape, "scale": noise.scale, "spread": noise.spread}
    if isinstance(model.background, FixedBackground | RandomBulk):
        configuration["background"] = {"class": _name(model.background, BACKGROUNDS)} | _background_options(model)
    root = _dataset({"mode_coordinates": posterior.mode_coordinates}, {"mode_coordinates": ("coordinate",)})
    root.attrs = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "package_version": package_version(),
        "configuration": json.dumps(configuration, allow_nan=False),
    }
    numbers = fields_of(statistics) | {
        "diagnostic_names": tuple(statistics.diagnostics),
        "diagnostic_values": tuple(statistics.diagnostics.values()),
        "scale_names": tuple(statistics.scales),
        "scale_values": tuple(statistics.scales.values()),
    }
    groups = {
        "/": root,
        "recording": _dataset(fields_of(posterior.recording), RECORDING_AXES),
        "statistics": _dataset(numbers, STATISTICS_AXES),
        "distribution": _dataset(distribution_arrays(distribution), DISTRIBUTION_AXES[kind]),
    }
    groups["statistics"].attrs = {"evidence_note": statistics.evidence_note}
    if isinstance(model.background, FixedBackground | RandomBulk):
        groups["background"] = _background_dataset(model.background)
    if model.noise_patterns is not None:
        groups["process_noise"] = _dataset({"patterns": model.noise_patterns}, {"patterns": ("neuron", "rank")})
    return groups


def _dataset(values: Mapping[str, Any], axes: Axes) -> xr.Dataset:
    """The named values with their axes; what is None or empty is left out."""
    import xarray as xr

    arrays = {name: np.asarray(values[name]) for name in axes if values.get(name) is not None}
    return xr.Dataset(
        {
            name: (axes[name], array, {"units": UNITS[name]} if name in UNITS else {})
            for name, array in arrays.items()
            if array.size
        }
    )


def _encoding(variable: xr.Variable) -> dict[str, Any]:
    """Strings as characters of fixed width; no number that stands for a missing one."""
    return {"dtype": "S1"} if variable.dtype.kind == "U" else {"_FillValue": None}


def _background_options(model: LowRankModel) -> dict[str, Any]:
    """What stands beside the class of the background in the configuration."""
    if isinstance(model.background, FixedBackground):
        W0 = model.background.W0
        return {"storage": "none" if W0 is None else "sparse" if model.background.is_sparse else "dense"}
    if isinstance(model.background, RandomBulk):
        return {"gain": _encode(model.background.gain), "learned": model.background.learned}
    return {}


def _background_dataset(background: FixedBackground | RandomBulk) -> xr.Dataset:
    if isinstance(background, RandomBulk):
        return _dataset({"subspace": background.visited}, BACKGROUND_AXES)
    factors = {"left": background.left, "right": background.right}
    if not background.is_sparse:
        return _dataset(factors | {"W0": background.W0}, BACKGROUND_AXES)
    post, pre = background.W0.coords
    return _dataset(factors | {"value": background.W0.data, "post": post, "pre": pre}, BACKGROUND_AXES)


def _encode(value: Any) -> Any:
    """A configuration as JSON: an object of a registered class becomes its fields and the name of the class."""
    if dataclasses.is_dataclass(value):
        return {"class": _name(value, CONFIGURATIONS)} | {
            name: _encode(field) for name, field in fields_of(value).items()
        }
    if isinstance(value, tuple):
        return [_encode(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value


def _name(value: Any, registry: Mapping[str, type]) -> str:
    for name, kind in registry.items():
        if type(value) is kind:
            return name
    raise argument_error(
        "posterior",
        f"parts of the classes {', '.join(registry)}",
        type(value).__name__,
        "a file holds classes of this package only: use one of these, or keep the fit in memory",
    )


def package_version() -> str:
    """The version of this package, which its top module alone knows."""
    return str(importlib.import_module("lrposterior").__version__)


# ------------------------------------------------------------------------------------------------------------- reading


def _refusal(path: Path, what: str, mend: str) -> ValueError:
    return argument_error("path", "a posterior written by Posterior.save", f"{str(path)!r}, {what}", mend)


def _require_intact(path: Path) -> None:
    """Refuse files of another kind, and those that are not as they were saved, before HDF5 reads them."""
    end = len(SEAL) + hashlib.sha256().digest_size
    with path.open("rb") as file:
        beginning = file.read(MEGABYTE)
        size = path.stat().st_size - end
        file.seek(max(size, 0))
        seal = file.read()
        if size > 0 and seal == SEAL + _digest(file, size):
            return
    if not beginning.startswith(SIGNATURE):
        raise _refusal(path, "which is no NetCDF-4 file", "name a file that ends in .nc and holds a fit")
    if FORMAT.encode() not in beginning:
        raise _refusal(path, "a NetCDF or HDF5 file of another kind", "name a file that holds a fit of this package")
    what = "which is cut short, damaged or changed since it was saved"
    raise _refusal(path, what, "copy it again, or fit and save again")


def _posterior(path: Path, root: xr.Dataset) -> Posterior:
    configuration = json.loads(root.attrs["configuration"])
    recording = Recording(**_values(_read(path, "recording")))
    model = _decode(configuration["model"])
    if configuration["background"] is not None:
        background = _background(configuration["background"], _read(path, "background"), recording.num_neurons)
        model = dataclasses.replace(model, background=background)
    if "process_noise" in configuration:
        noise = ProcessNoise(**configuration["process_noise"])
        if not isinstance(model.priors, DaleLoadings):
            noise = dataclasses.replace(noise, patterns=_values(_read(path, "process_noise"))["patterns"])
        model = dataclasses.replace(model, process_noise=noise)
    distribution = _read(path, "distribution")
    size = model.for_recording(recording).space_for(recording).size
    if {root.sizes["coordinate"], distribution.sizes["coordinate"]} != {size}:
        raise ValueError(f"the distribution does not have the {size} coordinates of the model")
    return Posterior(
        model=model,
        recording=recording,
        method=configuration["method"],
        seed=configuration["seed"],
        status=configuration["status"],
        statistics=_statistics(_read(path, "statistics")),
        mode_coordinates=_values(root)["mode_coordinates"],
        distribution=distribution_of(DISTRIBUTIONS[configuration["distribution"]], _values(distribution)),
        scale_priors={name: _decode(prior) for name, prior in configuration.get("scale_priors", {}).items()},
    )


def _read(path: Path, group: str) -> xr.Dataset:
    """One group as it was written: no number is taken for a missing one, a date or a duration."""
    import xarray as xr

    return xr.load_dataset(
        path, group=group, engine="h5netcdf", mask_and_scale=False, decode_times=False, decode_timedelta=False
    )


def _values(dataset: xr.Dataset) -> dict[str, Any]:
    """Arrays by name; numbers and strings as Python's own."""
    arrays = {str(name): variable.values for name, variable in dataset.data_vars.items()}
    return {
        name: array.item() if array.ndim == 0 else tuple(array.tolist()) if array.dtype.kind in "OU" else array
        for name, array in arrays.items()
    }


def _decode(value: Any) -> Any:
    """The inverse of `_encode`."""
    if isinstance(value, list):
        return tuple(_decode(each) for each in value)
    if not isinstance(value, dict):
        return value
    fields = {name: _decode(content) for name, content in value.items() if name != "class"}
    return CONFIGURATIONS[value["class"]](**fields)


def _statistics(dataset: xr.Dataset) -> FitStatistics:
    values = _values(dataset)
    names, numbers = values.pop("diagnostic_names", ()), values.pop("diagnostic_values", np.empty(0))
    scale_names, scales = values.pop("scale_names", ()), values.pop("scale_values", np.empty((0, 2)))
    for name in ("mode_objectives", "mode_log_evidences", "mode_counts"):
        if name in values:
            values[name] = tuple(values[name].tolist())
    for name in ("log_evidence", "regression_ahead"):
        values.setdefault(name, None)
    return FitStatistics(
        **values,
        evidence_note=dataset.attrs["evidence_note"],
        diagnostics=dict(zip(names, numbers.tolist(), strict=True)),
        scales={name: (value, spread) for name, (value, spread) in zip(scale_names, scales.tolist(), strict=True)},
    )


def _background(configuration: dict[str, Any], dataset: xr.Dataset, num_neurons: int) -> FixedBackground | RandomBulk:
    values = _values(dataset)
    if BACKGROUNDS[configuration["class"]] is RandomBulk:
        return RandomBulk(
            gain=_decode(configuration["gain"]),
            subspace=values["subspace"],
            learned=configuration["learned"],
        )
    W0 = values.get("W0")
    if configuration["storage"] == "sparse":
        nothing = np.empty(0, dtype=np.int64)
        value, post, pre = (values.get(name, nothing) for name in ("value", "post", "pre"))
        W0 = scipy.sparse.coo_array((value, (post, pre)), shape=(num_neurons, num_neurons))
    return FixedBackground(W0, values.get("left"), values.get("right"))
