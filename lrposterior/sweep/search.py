"""Run a plan: every configuration with every seed, by any executor, each run written as it finishes."""

from __future__ import annotations

import concurrent.futures
import contextlib
import multiprocessing
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path

import jax
from tqdm.auto import tqdm

from lrposterior.checks import require_instance
from lrposterior.recording import Recording
from lrposterior.sweep.configuration import Configuration, make_settings
from lrposterior.sweep.plan import SweepPlan
from lrposterior.sweep.result import SweepResult
from lrposterior.sweep.scores import CORRELATION, Run, require_correlation, score_in_file
from lrposterior.sweep.store import RunStore, fingerprint

# Libraries with threads of their own slow each other down where every core has its process.
ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NPROC"), "1")
RUNS, TABLE, SUMMARY = "runs", "sweep.nc", "summary.json"


def run_sweep(
    plan: SweepPlan,
    recording: Recording,
    folder: str | os.PathLike[str],
    *,
    executor: Executor | None = None,
    progress: bool = True,
) -> SweepResult:
    """Fit and score every configuration of a plan with every seed.

    Every finished run is written to `folder`/runs as it ends, so that an interruption loses at most those under way.
    The same call then goes on where it stopped, and a changed plan runs only what is new. At the end the table of all
    runs of this plan is written to `folder`/sweep.nc, and a summary to `folder`/summary.json. The recording is written
    there once, for all workers to read.

    A fit that fails, or a model that does not suit the recording, is a result: it is refused, and the text says why.
    Other errors end the sweep.

    Args:
        plan: what to try.
        recording: all trials, with the inputs as they were; embeddings are options of the plan.
        folder: where runs are kept. It is made where it does not exist.
        executor: of `concurrent.futures`, or whatever has its interface, as Dask's `Client.get_executor()`, whose
            workers read the same files. By default one process, of one thread, for every core of this machine.
        progress: show a progress bar.

    Raises:
        ValueError: if an argument is of another kind, the plan's trials cannot be held out from this recording, or
            correlation ranks and no label has enough of them.
    """
    require_instance(plan, "plan", SweepPlan, "make it with load_plan(path), or SweepPlan.from_dict(...)")
    require_instance(recording, "recording", Recording)
    for seed in plan.seeds:  # What cannot be held out, or not ranked, is refused before anything runs.
        _, held_out = plan.validation.split(recording, seed)
        if plan.score == CORRELATION:
            require_correlation(held_out, seed)
    folder = Path(folder).resolve()  # Workers may run elsewhere.
    (folder / RUNS).mkdir(parents=True, exist_ok=True)
    store = RunStore(folder / RUNS, fingerprint(recording), plan.validation)
    shared = folder / f"recording-{store.fingerprint[:20]}.npz"
    if not shared.is_file():
        recording.save(shared)
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(process_pool(os.cpu_count() or 1)) if executor is None else executor
        bar = stack.enter_context(tqdm(total=0, desc="sweep", unit="run", disable=not progress))
        configurations = plan.configurations
        runs = _run_missing(configurations, plan, shared, store, pool, bar)
        first = SweepResult.of_runs(plan, recording, configurations, runs)
        combined = plan.combinations(first.better_than_base)
        runs |= _run_missing(combined, plan, shared, store, pool, bar)
    result = SweepResult.of_runs(plan, recording, (*configurations, *combined), runs)
    result.save(folder / TABLE)
    result.save_summary(folder / SUMMARY)
    return result


@contextlib.contextmanager
def process_pool(num_workers: int) -> Iterator[Executor]:
    """Processes with one thread each, ended at once where the block ends by an error or an interruption.

    They are spawned: one that is forked after JAX has started waits for ever. Where this one is killed, they end too.
    """
    older = set(multiprocessing.active_children())
    spawn = multiprocessing.get_context("spawn")
    with (
        _environment(ONE_THREAD | _compilation_cache()),  # the libraries read it when a process starts
        concurrent.futures.ProcessPoolExecutor(num_workers, mp_context=spawn, initializer=_end_with_parent) as pool,
    ):
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - older:
                process.terminate()
            raise


def _end_with_parent() -> None:
    """End this process when its parent has ended, which would otherwise wait for work for ever."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ |= variables
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _compilation_cache() -> dict[str, str]:
    """The folder where this process keeps compiled code, for others to share."""
    folder = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
    return {"JAX_COMPILATION_CACHE_DIR": folder} if folder else {}


def _run_missing(
    configurations: Sequence[Configuration],
    plan: SweepPlan,
    recording: Path,
    store: RunStore,
    executor: Executor,
    bar: tqdm,
) -> dict[tuple[str, int], Run]:
    """The runs of these configurations by name and seed; those without a file are made from that of the recording."""
    places = {(one.name, seed): store.key(one, seed) for one in configurations for seed in plan.seeds}
    asked = {places[one.name, seed]: (one, seed) for one in configurations for seed in plan.seeds}
    finished = {key: run for key in asked if (run := store.load(key)) is not None}
    waiting: dict[Future[Run], str] = {}
    bar.total += len(asked)
    bar.update(len(finished))

    def keep(key: str, run: Run) -> None:
        store.save(key, *asked[key], run)
        finished[key] = run
        bar.update()

    def keep_all(ended: Iterable[Future[Run]]) -> None:
        for future in ended:
            keep(waiting.pop(future), future.result())

    try:
        for key in [key for key in asked if key not in finished]:
            configuration, seed = asked[key]
            try:
                settings = make_settings(configuration.options)
            except ValueError as failure:  # improvements that do not go together
                keep(key, Run({}, str(failure), 0.0))
                continue
            waiting[executor.submit(score_in_file, settings, recording, plan.validation, seed)] = key
            keep_all([future for future in waiting if future.done()])
        while waiting:
            keep_all(concurrent.futures.wait(waiting, return_when=concurrent.futures.FIRST_COMPLETED).done)
    finally:
        for future in waiting:
            future.cancel()
        keep_all([one for one in waiting if one.done() and not one.cancelled() and one.exception() is None])
    return {place: finished[key] for place, key in places.items()}
