"""What the command line reads, and what it checks before anything is computed."""

from __future__ import annotations

import hashlib
import math
import os
import platform
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrposterior.checks import argument_error
from lrposterior.files import require_file_name
from lrposterior.npz_files import read_npz

if TYPE_CHECKING:
    from lrposterior.input_embedding import InputEmbedding
    from lrposterior.model import LowRankModel
    from lrposterior.perturbation.candidates import Candidates
    from lrposterior.posterior import Posterior
    from lrposterior.preprocessing import Clipping
    from lrposterior.recording import Recording

DEFAULT_CANDIDATES = ("single", "ensemble", "latent")
MOST_ENSEMBLES, LARGEST_ENSEMBLE, NUM_LATENTS = 50, 10, 20
NO_ERRORS_OF_XLA = "3"
# What arguments of a model and a fit are called here.
OPTION_NAMES = {
    "rank": "--rank",
    "time_constant": "--time-constant",
    "nonlinearity": "--nonlinearity",
    "observation": "--observe",
    "initial_state": "--initial-state",
    "background": "--background",
    "process_noise": "--process-noise",
    "hidden_neurons": "--hidden-neurons",
    "drift": "--drift",
    "priors": "--loadings",
    "self_connections": "--no-self-connections",
    "method": "--method",
    "embedding": "--embedding",
}


def prepare_jax() -> None:
    """Keep compiled code between runs in the user's cache folder, unless the user has chosen a place for it.

    XLA prints a page on stderr for each piece of code that it reads back, because some options that it compiled with
    are no features of a processor. That can be switched off only before JAX is imported; where JAX was imported
    earlier, nothing is kept. Compiled code is for one kind of processor, which JAX leaves out of its keys: a folder
    that machines share gets one subfolder for each kind.
    """
    if "jax" not in sys.modules:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", NO_ERRORS_OF_XLA)
    chosen = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if chosen or os.environ.get("TF_CPP_MIN_LOG_LEVEL") != NO_ERRORS_OF_XLA:
        return
    import jax

    folder = _cache_folder() / "lrposterior" / "jax" / _processor()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a home that cannot be written to: everything works, a little slower
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def _cache_folder() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _processor() -> str:
    """A name for this kind of processor: a hash of its features where the system tells them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:12]}"


def require_new(path: Path, name: str, endings: Sequence[str], force: bool) -> None:
    """Refuse, before anything is computed, an output that could not be written or would replace a file."""
    require_file_name(path, name, endings)
    if path.exists() and not force:
        raise argument_error(
            name, "the name of a new file", f"{str(path)!r}, which exists", "add --force to replace it"
        )


def read_recording(
    path: Path, names: Sequence[str] | None = None, axes: str | None = None, dt: float | None = None
) -> Recording:
    """The recording that an argument and its options name; what was guessed of it is printed to stderr.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: `names` that are not of the form argument=variable, or what `load_recording` refuses.
    """
    from lrposterior.recording import load_recording

    given: dict[str, str | None] = {}
    for text in names or ():
        argument, is_given, variable = text.partition("=")
        if not is_given:
            raise argument_error("--name", "argument=variable", repr(text), "write for instance --name activity=fr")
        given[argument] = variable or None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        recording = load_recording(path, names=given or None, axes=None if axes is None else axes.split(","), dt=dt)
    for warning in caught:
        print(f"note: {warning.message}", file=sys.stderr)
    return recording


def read_session(
    path: Path,
    names: Sequence[str] | None,
    axes: str | None,
    dt: float | None,
    clip: float | None,
    hidden: Sequence[str] | None,
    loadings: str,
) -> tuple[Recording, Clipping | None]:
    """The recording that is to be fitted, with what was clipped of it, and with hidden neurons after its own.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: What `read_recording` refuses, a percentile out of its range, or hidden neurons that are not of the
            form type=number, of an unknown type, or without Dale's law.
    """
    from lrposterior.preprocessing import clip_outliers
    from lrposterior.unrecorded import add_hidden_neurons

    recording, clipping = read_recording(path, names, axes, dt), None
    if clip is not None:
        recording, clipping = clip_outliers(recording, percentile=clip)
    if hidden:
        if loadings.partition(",")[0] != "dale":
            mend = "add --loadings dale, or take --hidden-neurons for neurons of no type"
            raise argument_error("--hidden", "--loadings dale", repr(loadings), mend)
        recording = add_hidden_neurons(recording, dict(_type_and_number(text) for text in hidden))
    return recording, clipping


def _type_and_number(text: str) -> tuple[str, int]:
    cell_type, _, number = text.partition("=")
    if not (cell_type and number.isdigit()):
        raise argument_error("--hidden", "TYPE=NUMBER", repr(text), "write for instance --hidden E=8")
    return cell_type, int(number)


@contextmanager
def naming_options(names: Mapping[str, str] = OPTION_NAMES) -> Iterator[None]:
    """Errors that begin with an argument of a model or a fit begin with the option that the user typed for it."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        text = str(error)
        argument = re.split(r"\W", text, maxsplit=1)[0]
        if argument not in names:
            raise
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(names[argument] + text.removeprefix(argument)) from error


def read_model(
    rank: int,
    time_constant: str,
    infer_time_constant: bool,
    nonlinearity: str,
    observe: str,
    initial_state: str,
    background: str,
    process_noise: str,
    hidden_neurons: str,
    drift: bool,
    loadings: str,
    no_self_connections: bool,
) -> LowRankModel:
    """The model that the options describe.

    Raises:
        FileNotFoundError: A background is a file that does not exist.
        ValueError: An option is out of its range.
    """
    from lrposterior.cli.words import read_option, read_time_constant
    from lrposterior.options import make_model

    of_kinds = {
        "observation": observe,
        "background": background,
        "process_noise": process_noise,
        "priors": loadings,
    }
    options = {
        "rank": rank,
        "time_constant": read_time_constant(time_constant, infer_time_constant, OPTION_NAMES["time_constant"]),
        "nonlinearity": nonlinearity,
        "initial_state": initial_state,
        "hidden_neurons": _number_or_share(hidden_neurons),
        "drift": "sessions" if drift else "none",
        "self_connections": not no_self_connections,
    }
    options |= {option: read_option(option, text, OPTION_NAMES[option]) for option, text in of_kinds.items()}
    return make_model(options, names=OPTION_NAMES)


def read_method(text: str) -> Any:
    """The method of a fit, with its options.

    Raises:
        ValueError: It is not known, or an option of it is unknown or out of its range.
    """
    from lrposterior.cli.words import read_option
    from lrposterior.options import make_option

    return make_option("method", read_option("method", text, OPTION_NAMES["method"]), OPTION_NAMES["method"])


def read_embedding(
    text: str, model: LowRankModel, recording: Recording, method: Any, progress: bool
) -> InputEmbedding | None:
    """The embedding of the inputs that an option names, of a kind or in a file; one to learn is learned.

    Raises:
        FileNotFoundError: There is no such file.
        FitError: It cannot be learned.
        ValueError: The kind is not known, a field is unknown or out of its range, or the file is none of an embedding.
    """
    from lrposterior.cli.words import read_option
    from lrposterior.embedding_file import load_embedding
    from lrposterior.inference.learned_embedding import learned_where_needed
    from lrposterior.options import make_option

    name = OPTION_NAMES["embedding"]
    if text.endswith(".npz"):
        with naming_options({"path": name}):
            return load_embedding(text)
    embedding = make_option("embedding", read_option("embedding", text, name), name)
    if embedding is None:
        return None
    return learned_where_needed(embedding, model, recording, method, progress=progress)


def _number_or_share(value: str) -> int | float:
    """A number of neurons, or with a decimal point their share of all.

    Raises:
        ValueError: No number.
    """
    try:
        return int(value) if value.isdigit() else float(value)
    except ValueError:
        mend = "write 900, or 0.9 for nine of ten"
        raise argument_error("--hidden-neurons", "a number of neurons, or a share", repr(value), mend) from None


def make_candidates(
    posterior: Posterior,
    kinds: list[str] | None,
    power: float,
    onset: float | None,
    duration: float | None,
    num_candidates: int | None,
    size: int | None,
    cell_type: str | None,
    seed: int,
) -> Candidates:
    """The candidates that the options name, joined."""
    from lrposterior.perturbation import candidates as make

    recording = posterior.recording
    shared: dict[str, Any] = {"power": power, "onset": onset, "duration": duration}
    sets = []
    for kind in dict.fromkeys(kinds or DEFAULT_CANDIDATES):
        if kind == "single":
            sets.append(make.single_neuron_candidates(recording, **shared))
        elif kind == "ensemble":
            pool = recording.num_neurons if cell_type is None else (recording.cell_types or ()).count(cell_type)
            of_size = size if size is not None else min(LARGEST_ENSEMBLE, max(1, pool // 4))
            possible = math.comb(pool, of_size) if 0 < of_size <= pool else 1
            count = num_candidates if num_candidates is not None else min(MOST_ENSEMBLES, possible)
            sets.append(
                make.ensemble_candidates(
                    recording, num_candidates=count, size=of_size, cell_type=cell_type, seed=seed, **shared
                )
            )
        elif kind == "latent":
            components = min(posterior.model.rank, recording.num_neurons)
            count = NUM_LATENTS if num_candidates is None else num_candidates
            sets.append(
                make.latent_candidates(recording, num_candidates=count, num_components=components, seed=seed, **shared)
            )
        elif kind.endswith(".npz"):
            sets.append(make.pattern_candidates(recording, **_load_patterns(Path(kind)), **shared))
        else:
            mend = "or name a .npz file with the array patterns (candidate, neuron)"
            raise argument_error("--candidates", "single, ensemble or latent", repr(kind), mend)
    return make.combine_candidates(*sets)


def _load_patterns(path: Path) -> dict[str, Any]:
    """The arguments patterns and labels from a .npz file, without unpickling anything."""
    mend = "write it with numpy.savez(path, patterns=..., labels=...)"
    arrays = read_npz(path, "--candidates", "patterns (.npz)", mend, ("patterns",))
    if not set(arrays) <= {"patterns", "labels"}:
        raise argument_error(
            "--candidates", "the arrays patterns and labels", f"{sorted(arrays)} in {path.name!r}", mend
        )
    return arrays
