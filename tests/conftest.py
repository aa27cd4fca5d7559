"""The environment of every test: 64-bit, one thread per process, no display, no colours."""

import os

# Read by the libraries at their first import, so they come before it. A BLAS and an XLA with threads of their own
# slow each other down, and with some versions of jaxlib wait for each other for ever.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["NPROC"] = "1"
os.environ["MPLBACKEND"] = "Agg"
# At every hit of the compilation cache, jaxlib lists the features of the processor on standard error.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# The command line's help is compared as plain text of a known width, on a terminal and in CI alike.
os.environ["NO_COLOR"] = "1"
os.environ["COLUMNS"] = "100"
os.environ["_TYPER_FORCE_DISABLE_TERMINAL"] = "1"

import importlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CHECKOUT / ".cache" / "jax"))
# However little it took: a test compiles hundreds of operations that take less than a tenth of a second each.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import hypothesis
import jax
import pytest

# The library never switches x64 on globally; the tests do, so that a reference written in a test is exact as well.
# What a user in single precision sees is tested under the fixture `single_precision`.
jax.config.update("jax_enable_x64", True)

# Compilation makes the first example slow, and CI must not depend on luck.
hypothesis.settings.register_profile("lrposterior", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("lrposterior")

_STARTED = time.monotonic()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--time-limit",
        type=float,
        metavar="SECONDS",
        help="skip, and say so, the tests that would start later than this",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that take minutes come last: where time ends, it ends among them."""
    items.sort(key=lambda item: item.get_closest_marker("long") is not None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    limit = item.config.getoption("--time-limit")
    if limit is not None and time.monotonic() - _STARTED > limit:
        pytest.skip(f"not started: the time limit of {limit:g} s had passed")


@pytest.fixture
def strict_jax() -> Iterator[None]:
    """No implicit promotion of dtypes or ranks.

    For tests of our own pure functions, by `pytestmark = pytest.mark.usefixtures("strict_jax")`. It cannot be the rule:
    NumPyro's transforms and guides, and optax.lbfgs, rely on promotion.
    """
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def single_precision() -> Iterator[None]:
    """JAX as users have it who never switched x64 on."""
    with jax.enable_x64(False):
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the shared recordings; a test that asks for it is skipped where there is none."""
    folder = Path(os.environ.get("LRPOSTERIOR_DATA", CHECKOUT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no shared data in {folder}; set LRPOSTERIOR_DATA to the folder that holds them")
    return folder


@pytest.fixture(autouse=True, scope="module")
def forget_compiled_code() -> Iterator[None]:
    """Compiled functions of one file are let go before the next.

    Each keeps memory maps, of which Linux allows a process 65,530 by default; beyond them the compiler crashes.
    """
    yield
    jax.clear_caches()


@pytest.fixture(autouse=True)
def close_figures() -> Iterator[None]:
    """Figures of one test do not pile up in the next."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture
def structured_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Laplace fits by the structured engine, however small they are."""
    monkeypatch.setattr(importlib.import_module("lrposterior.inference.fit"), "MAX_DENSE", 0)
