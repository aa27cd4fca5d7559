"""Twins, latent circuits and posteriors of a network that performs a delayed-response task, when it is perturbed.

    python examples/delayed_response.py                  prints the tables
    python examples/delayed_response.py --output FOLDER  writes figures and tables, and stores results fit by fit

Three networks of full rank are trained, two at a time. LRPOSTERIOR_TINY=1 makes it a test of seconds, with one small
network; its files go to a temporary folder.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import multiprocessing
import os
import tempfile
from pathlib import Path

from delayed_response_parts import figures, tables
from delayed_response_parts.experiment import TINY, Size
from delayed_response_parts.families import run

IS_TINY = os.environ.get("LRPOSTERIOR_TINY", "") not in ("", "0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="folder for figures and results; a second call goes on")
    parser.add_argument("--seeds", type=int, default=1 if IS_TINY else 3, help="number of networks")
    parser.add_argument("--processes", type=int, default=1 if IS_TINY else 2)
    options = parser.parse_args()
    output = options.output or (Path(tempfile.mkdtemp()) if IS_TINY else None)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    results = run_all(options.seeds, options.processes, output)
    print("\n" + tables.make_tables(results))
    if output is not None:
        (output / "results.md").write_text(tables.make_tables(results), encoding="utf-8")
        figures.save_all(output, results)


def run_all(num_seeds: int, num_processes: int, folder: Path | None) -> list[dict]:
    of_seed = functools.partial(run, size=TINY if IS_TINY else Size(), folder=folder)
    if num_processes == 1:
        return [of_seed(seed) for seed in range(num_seeds)]
    # Processes are started afresh: JAX does not survive a fork.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(num_processes, mp_context=context) as pool:
        return list(pool.map(of_seed, range(num_seeds)))


if __name__ == "__main__":
    main()
