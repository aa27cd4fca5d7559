"""The information matrix by structure against automatic differentiation, and a Laplace approximation without the gauge.

Table 1: the information F of a recording of 24 trials of 70 bins (that of benchmarks/scaling.py, at its true
parameters) by the recursion of the latents (`lrposterior.curvature.structured`) and by automatic differentiation
(`lrposterior.curvature.automatic`): largest difference over the largest entry, and seconds of the processor, compiled,
the lesser of two that take turns.

Table 2: what NumPyro's AutoLaplaceApproximation makes of the same model (`lrposterior.numpyro_model`) on small networks
drawn from the prior (8 neurons, rank 2, 24 trials of 70 bins), against NUTS on the posterior with the gauge integrated
out (`lrposterior.NUTS`, 1,000 draws). It inverts the Hessian in all of (M, K), in which the gauge is flat:

- as it comes: the mode by its own search (BFGS, from the package's mode, to be fair), the inverse of the Hessian;
- with a pseudo-inverse: curvatures below 1e-6 of the largest are taken for infinite, by its option `hessian_fn`.

For the standard deviations of all entries of W, from 2,000 draws: their ratio to those of NUTS (the least, median, and
largest), and the same for the package's Laplace approximation; seconds of the processor with compilation.

    OPENBLAS_NUM_THREADS=1 NPROC=1 python benchmarks/curvature.py
    python benchmarks/curvature.py --neurons --networks 3    # table 2 only; --networks 0: table 1 only
    python benchmarks/curvature.py --summary
    python benchmarks/curvature.py --tiny
"""

import argparse
import functools
import time
import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import infer, optim
from numpyro.infer.autoguide import AutoLaplaceApproximation
from scaling import DT, NOISE, TIME_CONSTANT, make_recording
from stored import exists, load, store

import lrposterior as lrp
from lrposterior.curvature.automatic import automatic_information
from lrposterior.curvature.structured import structured_information
from lrposterior.inference.initialise import initialise
from lrposterior.inference.mode import find_mode
from lrposterior.inference.problem import Problem
from lrposterior.precision import double_precision

NAME = "curvature"
NUM_REPETITIONS, NUM_DRAWS = 2, 2000
SMALLEST_CURVATURE, INFINITE = 1e-6, 1e4
FORMS = {"structured": structured_information, "automatic": automatic_information}


@double_precision
def compare_forms(num_neurons: int, num_trials: int, num_bins: int) -> dict:
    """Difference and seconds of the two forms of the information."""
    recording = make_recording(num_neurons, num_trials, num_bins)
    model = lrp.LowRankModel(
        rank=2, time_constant=TIME_CONSTANT, priors=lrp.Priors(unit=1.0), background=None
    ).for_recording(recording)
    space, data = model.space_for(recording), model.data(recording)
    z = jnp.asarray(initialise(Problem.of(model, recording)))
    compiled = {name: jax.jit(functools.partial(form, model, space)) for name, form in FORMS.items()}
    found = {name: np.asarray(form(z, data)) for name, form in compiled.items()}
    seconds = dict.fromkeys(FORMS, np.inf)
    for _ in range(NUM_REPETITIONS):
        for name, form in compiled.items():
            started = time.process_time()
            jax.block_until_ready(form(z, data))
            seconds[name] = min(seconds[name], time.process_time() - started)
    difference = np.max(np.abs(found["structured"] - found["automatic"])) / np.max(np.abs(found["automatic"]))
    return {"neurons": num_neurons, "coordinates": space.num_dynamics, "difference": float(difference)} | seconds


def pseudo_inverse(function: Callable, point: jax.Array) -> jax.Array:
    """A precision whose inverse is the pseudo-inverse of the Hessian."""
    values, vectors = jnp.linalg.eigh(jax.hessian(function)(point))
    kept = jnp.where(values > SMALLEST_CURVATURE * values[-1], values, INFINITE * values[-1])
    return (vectors * kept) @ vectors.T


@double_precision
def automatic_laplace(model: lrp.LowRankModel, recording: lrp.Recording) -> list[dict]:
    """Standard deviations (post, pre) of W by AutoLaplaceApproximation, as it comes and with a pseudo-inverse."""
    problem = Problem.of(model, recording)
    mode = problem.space.unwhiten(find_mode(problem, initialise(problem)).z)
    program = lrp.numpyro_model(model, recording)
    start = infer.init_to_value(values={name: jnp.asarray(value) for name, value in mode.items() if value.size})
    rows = []
    for name, curvature in (("AutoLaplaceApproximation", None), ("with a pseudo-inverse", pseudo_inverse)):
        started = time.process_time()
        guide = AutoLaplaceApproximation(program, init_loc_fn=start, hessian_fn=curvature)
        search = infer.SVI(program, guide, optim.Minimize(), infer.Trace_ELBO())
        state, _ = search.update(search.init(jax.random.key(0)))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            draws = guide.sample_posterior(jax.random.key(1), search.get_params(state), sample_shape=(NUM_DRAWS,))
        W = np.asarray(draws["M"] @ jnp.swapaxes(draws["K"], 1, 2)) / recording.num_neurons
        seconds = time.process_time() - started
        rows.append({"method": name, "sd": W.std(axis=0), "seconds": seconds, "warnings": len(caught)})
    return rows


def compare_posteriors(seed: int, num_neurons: int, chains: lrp.NUTS) -> list[dict]:
    """Ratios of standard deviations of W to those of NUTS, on one network."""
    model = lrp.LowRankModel(rank=2, time_constant=TIME_CONSTANT, priors=lrp.Priors(unit=1.0), background=None)
    recording = lrp.simulate_recording(
        model, num_neurons=num_neurons, num_trials=24, num_bins=70, dt=DT, noise_scale=NOISE, seed=seed
    ).recording
    rows = []
    for name, method in (("NUTS", chains), ("Laplace", lrp.Laplace())):
        started = time.process_time()
        posterior = lrp.fit(model, recording, method, seed=0, progress=False)
        seconds = time.process_time() - started
        rows.append({"method": name, "sd": posterior.connectivity_sd(), "seconds": seconds, "status": posterior.status})
    rows += automatic_laplace(model, recording)
    reference = rows[0]["sd"]
    for row in rows:
        ratio = row.pop("sd") / reference
        row |= {"network": seed, "least": ratio.min(), "median": np.median(ratio), "largest": ratio.max()}
    return [
        {name: float(value) if isinstance(value, np.number) else value for name, value in row.items()} for row in rows
    ]


def print_tables(forms: list[dict], posteriors: list[dict]) -> None:
    print("neurons  coordinates  largest difference  structured (s)  automatic (s)  ratio of times")
    for row in forms:
        print(
            f"{row['neurons']:7d} {row['coordinates']:12d} {row['difference']:19.1e} {row['structured']:15.4f} "
            f"{row['automatic']:14.3f} {row['automatic'] / row['structured']:15.1f}"
        )
    print("\nsd of entries of W over that of NUTS")
    print("network  method                        least    median   largest  seconds  ratio to Laplace")
    for row in posteriors:
        ours = next(
            one["seconds"] for one in posteriors if one["network"] == row["network"] and one["method"] == "Laplace"
        )
        notes = (
            "; it warned" if row.get("warnings") else "" if row.get("status") in (None, "converged") else "; see status"
        )
        print(
            f"{row['network']:7d}  {row['method']:26s} {row['least']:8.2g} {row['median']:9.3g} {row['largest']:9.3g} "
            f"{row['seconds']:8.1f} {row['seconds'] / ours:17.1f}{notes}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neurons", type=int, nargs="*", default=[20, 50, 100], help="of table 1")
    parser.add_argument("--networks", type=int, default=2, help="of table 2")
    parser.add_argument("--summary", action="store_true", help="print what is stored")
    parser.add_argument("--tiny", action="store_true", help="small networks and short chains; not stored")
    options = parser.parse_args()
    if options.tiny:
        chains = lrp.NUTS(num_warmup=10, num_samples=20, num_chains=1)
        print_tables([compare_forms(8, 3, 20)], compare_posteriors(0, 4, chains))
        return
    stored = load(NAME) if exists(NAME) else {"forms": [], "posteriors": []}
    if not options.summary:
        forms = [compare_forms(num_neurons, 24, 70) for num_neurons in options.neurons] or stored["forms"]
        store(NAME, forms=forms, posteriors=stored["posteriors"])
        chains = lrp.NUTS(num_warmup=300, num_samples=1000, num_chains=1)
        posteriors = [row for seed in range(options.networks) for row in compare_posteriors(seed, 8, chains)]
        store(NAME, forms=forms, posteriors=posteriors or stored["posteriors"])
    stored = load(NAME)
    print(stored["machine"])
    print_tables(stored["forms"], stored["posteriors"])


if __name__ == "__main__":
    main()
