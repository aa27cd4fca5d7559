"""How long is an epoch of a fit that matches trials, against the same computation in PyTorch?

    python benchmarks/matching.py              run it and store the results
    python benchmarks/matching.py --summary    print what is stored
    python benchmarks/matching.py --tiny       a small recording that is not stored

The recording has the size of a session: 835 trials of 219 bins with 54 neurons of two types, counts that are Poisson
numbers, and three inputs; the network has rank 4 and obeys Dale's law. An epoch is one pass over all trials in steps of
at most 100, in single precision: in the warm-up with L_neuron alone, then with all losses. Seconds are the smallest of
`NUM_EPOCHS` after the first, which compiles.

PyTorch is not a dependency: `pip install torch`, best into an environment of its own. Its loop is what one would write
there: the network bin by bin, two simulations of which one is differentiated, smoothing by a product with a matrix,
Sinkhorn's iteration until potentials settle, the slopes balanced by their norms. Where it cannot be imported, the ratio
is not measured.
"""

import argparse
import importlib.util
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import stored

import lrposterior as lrp
from lrposterior.matching.averages import FLATTEST, smoothing_kernel
from lrposterior.matching.losses import SCALE_WEIGHT, VARIANCE_WEIGHT
from lrposterior.matching.sinkhorn import MAX_ITERATIONS
from lrposterior.matching.training import State, Trials, Weights, learning_rates, run_epoch

NAME = "matching"
FULL, TINY = (835, 219, 54), (40, 30, 10)
RANK, WIDTH, DT, STEP, ENTROPY, NUM_EPOCHS = 4, 0.05, 0.01, 100, 0.05, 4


def session(num_trials: int, num_bins: int, num_neurons: int) -> tuple[lrp.LowRankModel, lrp.Recording]:
    random = np.random.default_rng(0)
    types = ["E"] * (num_neurons - num_neurons // 5) + ["I"] * (num_neurons // 5)
    inputs = random.standard_normal((num_trials, num_bins, 3))
    counts = random.poisson(0.1, (num_trials, num_bins, num_neurons)).astype(float)
    recording = lrp.Recording(counts, DT, inputs=inputs, cell_types=types)
    model = lrp.LowRankModel(
        RANK,
        nonlinearity="softplus",
        observation=lrp.PoissonObservation(),
        background=None,
        priors=lrp.DaleLoadings(K={"E": 1.5, "I": 6.0}),
    )
    return model.for_recording(recording), recording


def fastest(epoch: Callable[[int], Any]) -> float:
    epoch(0)
    seconds = []
    for number in range(1, NUM_EPOCHS + 1):
        started = time.perf_counter()
        epoch(number)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def start(model: lrp.LowRankModel, recording: lrp.Recording) -> np.ndarray:
    space = model.space_for(recording)
    return 0.3 * np.random.default_rng(1).standard_normal(space.size)


def step_size(num_trials: int) -> int:
    return num_trials // -(-num_trials // STEP)


def by_jax(model: lrp.LowRankModel, recording: lrp.Recording, share: float) -> float:
    space = model.space_for(recording)
    with jax.enable_x64(False):
        trials = Trials.of(model, recording, WIDTH, np.ones((recording.num_trials, 1)), None)
        fixed = jnp.asarray(learning_rates(space, 0.01, 0.001)), trials
        weights, batch = Weights("euclidean", ENTROPY, 1e-4, 0.0), step_size(recording.num_trials)
        state = State.at(start(model, recording))

        def epoch(number: int) -> None:
            key, of_trials = jax.random.key(number), jnp.asarray(share, jnp.float32)
            jax.block_until_ready(run_epoch(model.structure, weights, batch, space, *fixed, state, of_trials, key))

        return fastest(epoch)


def by_torch(model: lrp.LowRankModel, recording: lrp.Recording, share: float) -> float:
    import torch

    generator = torch.Generator().manual_seed(0)
    space = model.space_for(recording)
    named = space.unwhiten(start(model, recording))
    deviations = {block.name: np.broadcast_to(block.standard_deviation, block.shape) for block in space.blocks}
    scales = {name: torch.tensor(np.array(value), dtype=torch.float32) for name, value in deviations.items()}
    means = {block.name: torch.tensor(block.mean, dtype=torch.float32) for block in space.blocks}
    z = {
        name: ((torch.tensor(np.array(value), dtype=torch.float32) - means[name]) / scales[name]).requires_grad_()
        for name, value in named.items()
    }
    optimiser = torch.optim.Adam(z.values(), lr=0.0)  # every epoch begins at the start, as ours does
    signs = torch.tensor(model.priors.signs[:, None], dtype=torch.float32)
    kernel = torch.tensor(smoothing_kernel(recording.num_bins, WIDTH / DT), dtype=torch.float32)
    kernel = kernel / kernel.sum(dim=1, keepdim=True)
    inputs = torch.tensor(recording.inputs, dtype=torch.float32)
    recorded = torch.einsum("ts,bsn->btn", kernel, torch.tensor(recording.activity, dtype=torch.float32))
    a, num_neurons = DT / model.time_constants.medians[0], recording.num_neurons

    def simulate(some: torch.Tensor) -> torch.Tensor:
        values = {name: means[name] + scales[name] * each for name, each in z.items()}
        drive = some @ values["B"].T + values["b"]
        current, currents = torch.zeros_like(drive[:, 0]), []
        for now in range(recording.num_bins):
            currents.append(current)
            rates = torch.nn.functional.softplus(current)
            recurrent = (rates @ values["K"]) @ values["M"].T / num_neurons
            current = (1.0 - a) * current + a * (recurrent + drive[:, now])
        softplus = torch.nn.functional.softplus(torch.stack(currents, dim=1))
        mean = DT * (torch.exp(values["log_rate_scale"]) * softplus + torch.exp(values["log_baseline"]))
        noise = torch.randn(mean.shape, generator=generator)
        return torch.einsum("ts,bsn->btn", kernel, mean + torch.sqrt(mean) * noise)

    def neuron_loss(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        one, other = one.mean(dim=0), other.mean(dim=0)
        apart, wanted = one - one.mean(dim=0), other - other.mean(dim=0)
        variance, of_wanted = (apart**2).mean(dim=0), (wanted**2).mean(dim=0)
        spread = torch.sqrt(torch.maximum(variance, FLATTEST**2 * of_wanted) * of_wanted)
        scale = (one.mean(dim=0) - other.mean(dim=0)) ** 2 / (other**2).mean(dim=0)
        loss = 1.0 - (apart * wanted).mean(dim=0) / spread + SCALE_WEIGHT * scale
        return (loss + VARIANCE_WEIGHT * (variance / of_wanted - 1.0) ** 2).mean()

    def cost(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        one, other = one.flatten(1), other.flatten(1)
        squares = (one**2).sum(dim=1)[:, None] - 2.0 * one @ other.T + (other**2).sum(dim=1)[None]
        return squares.clamp(min=0.0) / one.shape[1]

    def transport(costs: torch.Tensor, epsilon: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            scaled, size, number = costs / epsilon, np.log(len(costs)), 0
            rows, moved = torch.zeros(len(costs)), torch.tensor(np.inf)
            while moved > 1e-3 and number < MAX_ITERATIONS:
                number += 1
                columns = size - torch.logsumexp(rows[:, None] - scaled, dim=0)
                following = size - torch.logsumexp(columns[None] - scaled, dim=1)
                rows, moved = following, (following - rows).abs().max()
            columns = size - torch.logsumexp(rows[:, None] - scaled, dim=0)
            plan = torch.exp(rows[:, None] + columns[None] - scaled) / costs.numel()
        return (plan * costs).sum()

    def epoch(number: int) -> None:
        batch = step_size(recording.num_trials)
        order = torch.randperm(recording.num_trials, generator=generator)
        for first in range(0, len(order) - batch + 1, batch):
            chosen = order[first : first + batch]
            optimiser.zero_grad()
            simulated, y = simulate(inputs[chosen]), recorded[chosen]
            held = simulated.detach().requires_grad_()
            slope = torch.autograd.grad(neuron_loss(held, y), held)[0]
            if share > 0.0:
                with torch.no_grad():
                    again, within = simulate(inputs[chosen]), cost(y, y)
                epsilon = ENTROPY * within.mean()
                transport(within, epsilon)
                loss = transport(cost(y, held), epsilon) - transport(cost(again, held), epsilon)
                more = torch.autograd.grad(loss, held)[0]
                slope = slope + share * more * slope.norm() / more.norm()
            M, K, B = ((means[name] + scales[name] * z[name]) for name in ("M", "K", "B"))
            penalty = ((M.T @ M) * (K.T @ K)).sum() / num_neurons**2 + (B**2).sum()
            torch.autograd.backward([simulated, 1e-4 * penalty], [slope, torch.ones(())])
            torch.nn.utils.clip_grad_norm_(z.values(), 1.0)
            optimiser.step()
            with torch.no_grad():
                z["M"].clamp_(min=0.0)
                z["K"].copy_(signs * (signs * z["K"]).clamp(min=0.0))

    return fastest(epoch)


def measure(size: tuple[int, int, int]) -> dict[str, Any]:
    model, recording = session(*size)
    with_torch = importlib.util.find_spec("torch") is not None
    row: dict[str, Any] = {"size": list(size), "step": step_size(size[0])}
    for stage, share in (("warm-up", 0.0), ("all", 1.0)):
        row[stage] = {"ours": by_jax(model, recording, share)}
        if with_torch:
            row[stage]["torch"] = by_torch(model, recording, share)
    return row


def summarise(row: dict[str, Any]) -> None:
    print("trials x bins x neurons  step of  seconds of an epoch: warm-up, all   PyTorch: warm-up, all  ratio, ratio")
    ours, torch = ([row[stage].get(name) for stage in ("warm-up", "all")] for name in ("ours", "torch"))
    text = f"{' x '.join(map(str, row['size'])):23s}  {row['step']:7d}  {ours[0]:28.2f}, {ours[1]:.2f}   "
    if torch[0] is None:
        print(text + "not measured")
    else:
        print(text + f"{torch[0]:16.2f}, {torch[1]:.2f}  {torch[0] / ours[0]:.1f}, {torch[1] / ours[1]:.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--summary", action="store_true")
    arguments = parser.parse_args()
    if arguments.tiny:
        summarise(measure(TINY))
    elif arguments.summary:
        summarise(stored.load(NAME)["row"])
    else:
        row = measure(FULL)
        stored.store(NAME, row=row)
        summarise(row)
