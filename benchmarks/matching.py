"""How long is an epoch of a fit that matches trials, against the same computation in PyTorch?

    python benchmarks/matching.py              run it and store the results
    python benchmarks/matching.py --summary    print what is stored
    python benchmarks/matching.py --tiny       a small session that is not stored

The session is that of `simulate_session`: 835 trials of 219 bins with 54 neurons of two types, 14 inputs and four
conditions. The model is that of the page on such a session: rank 3 under Dale's law with log-normal loadings, a time
constant of each type that is inferred, process noise, and Poisson counts with a scale and a baseline of every neuron.
An epoch is one pass over all trials in steps of at most 100, in single precision, from the true network: with L_neuron
alone, as in the warm-up, then with all losses. Epochs of both take turns; seconds, of the clock and of all threads on
the processor, are the smallest of `NUM_EPOCHS` after the first, which compiles.

PyTorch is not a dependency: `pip install torch`, best into an environment of its own. Its loop is what one would write
there: the network bin by bin, two simulations of which one is differentiated, noise drawn in every step, smoothing by a
product with a matrix, Sinkhorn's iteration until potentials settle, the slopes balanced by their norms. With the noise
of ours it gives the losses and the slope of the first step; how far they are apart is measured before the epochs.
Where it cannot be imported, there is neither this nor the ratio.
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
from lrposterior.matching.averages import FLATTEST
from lrposterior.matching.losses import SCALE_WEIGHT, VARIANCE_WEIGHT
from lrposterior.matching.sinkhorn import MAX_ITERATIONS
from lrposterior.matching.training import State, Trials, Weights, learning_rates, loss_and_slope, run_epoch

NAME = "matching"
FULL = {"num_trials": 835, "num_bins": 219, "num_excitatory": 41, "num_inhibitory": 13, "num_inputs": 14}
TINY = {"num_trials": 40, "num_bins": 30, "num_excitatory": 8, "num_inhibitory": 2, "num_inputs": 4}
STAGES = {"warm-up": 0.0, "all": 1.0}
WIDTH, LARGEST_STEP, NUM_EPOCHS, WEIGHTS = 0.05, 100, 4, Weights("euclidean", 0.05, 1e-4, 0.0)


class Session:
    """A session, its model, and the true network in whitened coordinates."""

    def __init__(self, size: dict[str, int]) -> None:
        truth = lrp.simulate_session(**size, seed=0)
        recording, dt = truth.recording, truth.recording.dt
        model = lrp.LowRankModel(
            rank=3,
            nonlinearity="softplus",
            observation=lrp.PoissonObservation(),
            time_constant={"E": lrp.TimeConstantPrior(2.0 * dt), "I": lrp.TimeConstantPrior(2.0 * dt)},
            priors=lrp.DaleLoadings(K={"E": 1.5, "I": 6.0}, magnitudes="log-normal"),
            process_noise="diagonal",
            background=None,
        )
        self.recording, self.model = recording, model.for_recording(recording)
        self.space = self.model.space_for(recording)
        constants = {"time_constant": np.array(truth.model.time_constants.medians)}
        self.z = np.array(self.space.whiten(self.model.coordinates(truth.parameters | constants, dt)))
        self.rates = learning_rates(self.space, 0.01, 0.001)
        self.step = recording.num_trials // -(-recording.num_trials // LARGEST_STEP)
        labels = np.array(recording.trial_labels)
        with jax.enable_x64(False):
            self.trials = Trials.of(self.model, recording, WIDTH, labels[:, None] == np.unique(labels), None)


class ByJax:
    """The epoch of the package."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def epoch(self, number: int, share: float) -> None:
        of, key = self.session, jax.random.key(number)
        with jax.enable_x64(False):
            fixed = jnp.asarray(of.rates), of.trials, State.at(of.z), jnp.asarray(share, jnp.float32)
            jax.block_until_ready(run_epoch(of.model.structure, WEIGHTS, of.step, of.space, *fixed, key))

    def first_step(self) -> tuple[list[np.ndarray], np.ndarray, list[tuple[np.ndarray, np.ndarray]]]:
        """L_neuron, L_trial and penalty, their slope, and the process and observation noise of both simulations."""
        of, key = self.session, jax.random.key(0)
        chosen = jnp.arange(of.step)
        with jax.enable_x64(False):
            z, share = jnp.asarray(of.z, jnp.float32), jnp.asarray(1.0, jnp.float32)
            step = jax.jit(loss_and_slope, static_argnums=(0, 1))
            losses, slope = step(of.model.structure, WEIGHTS, of.space, of.trials, z, share, chosen, key)
            shape, noise = (of.step, of.recording.num_bins), []
            for one in jax.random.split(key):
                sizes = zip(jax.random.split(one), (of.model.rank, of.recording.num_neurons), strict=True)
                noise.append(tuple(np.array(jax.random.normal(of_kind, (*shape, size))) for of_kind, size in sizes))
        return [np.array(loss) for loss in losses], np.array(slope), noise


class ByTorch:
    """The same in PyTorch."""

    def __init__(self, session: Session) -> None:
        import torch

        self.torch, self.session, self.generator = torch, session, torch.Generator().manual_seed(0)
        recording, trials = session.recording, session.trials
        self.inputs, self.belongs, self.recorded = (
            torch.tensor(np.array(each), dtype=torch.float32)
            for each in (recording.inputs, trials.belongs, trials.data.activity)
        )
        kernel = torch.tensor(np.array(trials.kernel))
        self.kernel = kernel / kernel.sum(dim=1, keepdim=True)
        self.population = torch.tensor(np.array(trials.data.population), dtype=torch.long)
        self.priors = {
            block.name: [
                torch.tensor(each, dtype=torch.float32)
                for each in (block.mean, block.standard_deviation, 0.0 if block.sign is None else block.sign)
            ]
            for block in session.space.blocks
        }
        self.begin()

    def begin(self) -> None:
        """Every epoch begins at the start, as ours does."""
        torch, space = self.torch, self.session.space
        self.z = {
            block.name: torch.tensor(space.coordinates(self.session.z, block.name), dtype=torch.float32)
            for block in space.blocks
        }
        rates = {name: float(self.session.rates[space.slices[name]][0]) for name in self.z}
        self.optimiser = torch.optim.Adam(
            [{"params": [each.requires_grad_()], "lr": rates[name]} for name, each in self.z.items()]
        )

    def values(self) -> dict[str, Any]:
        """The parameters; those with a sign have log-normal magnitudes."""
        of_z = {}
        for name, (mean, deviation, sign) in self.priors.items():
            signed = name in ("M", "K")
            of_z[name] = sign * deviation * self.torch.exp(self.z[name]) if signed else mean + deviation * self.z[name]
        return of_z

    def draw(self, num_trials: int) -> tuple[Any, Any]:
        shape = num_trials, self.session.recording.num_bins
        sizes = self.session.model.rank, self.session.recording.num_neurons
        process, observation = (self.torch.randn((*shape, size), generator=self.generator) for size in sizes)
        return process, observation

    def simulate(self, values: dict[str, Any], inputs: Any, noise: tuple[Any, Any]) -> Any:
        torch, dt, (process, observation) = self.torch, self.session.recording.dt, noise
        a = (dt / (dt + torch.exp(values["log_time_constant_excess"])))[self.population]
        M, K = values["M"], values["K"] / len(self.population)
        drive = a * (inputs @ values["B"].T + values["b"])
        drive = drive + (process * torch.exp(values["log_process_scale"])) @ M.T
        current, currents = torch.zeros_like(drive[:, 0]), []
        for driven in drive.unbind(dim=1):
            currents.append(current)
            current = (1.0 - a) * current + a * (torch.nn.functional.softplus(current) @ K @ M.T) + driven
        softplus = torch.nn.functional.softplus(torch.stack(currents, dim=1))
        mean = dt * (torch.exp(values["log_rate_scale"]) * softplus + torch.exp(values["log_baseline"]))
        return torch.einsum("ts,bsn->btn", self.kernel, mean + torch.sqrt(mean) * observation)

    def neuron_loss(self, simulated: Any, recorded: Any, belongs: Any) -> Any:
        torch, weight = self.torch, belongs / belongs.sum(dim=0)
        one, other = (torch.einsum("bc,btn->ctn", weight, each).flatten(0, 1) for each in (simulated, recorded))
        apart, wanted = one - one.mean(dim=0), other - other.mean(dim=0)
        variance, of_wanted = (apart**2).mean(dim=0), (wanted**2).mean(dim=0)
        spread = torch.sqrt(torch.maximum(variance, FLATTEST**2 * of_wanted) * of_wanted)
        scale = (one.mean(dim=0) - other.mean(dim=0)) ** 2 / (other**2).mean(dim=0)
        loss = 1.0 - (apart * wanted).mean(dim=0) / spread + SCALE_WEIGHT * scale
        return (loss + VARIANCE_WEIGHT * (variance / of_wanted - 1.0) ** 2).mean()

    def trial_loss(self, simulated: Any, again: Any, recorded: Any) -> Any:
        within = _costs(recorded, recorded)
        epsilon = WEIGHTS.entropy * within.mean()
        between, others = (self.transport(_costs(one, simulated), epsilon) for one in (recorded, again))
        # The slope of the last counts twice (`lrposterior.matching.sinkhorn`).
        return between - 0.5 * self.transport(within, epsilon) - others + 0.5 * others.detach()

    def transport(self, costs: Any, epsilon: Any) -> Any:
        torch = self.torch
        with torch.no_grad():
            scaled, size, number = costs / epsilon, np.log(len(costs)), 0
            rows, moved = torch.zeros(len(costs)), torch.tensor(np.inf)
            while moved > 1e-3 and number < MAX_ITERATIONS:
                number += 1
                columns = size - torch.logsumexp(rows[:, None] - scaled, dim=0)
                following = size - torch.logsumexp(columns[None] - scaled, dim=1)
                rows, moved = following, (following - rows).abs().max()
            columns = size - torch.logsumexp(rows[:, None] - scaled, dim=0)
            log_plan = rows[:, None] + columns[None] - scaled
            plan = torch.exp(log_plan) / costs.numel()
        return (plan * costs).sum() + epsilon * (plan * log_plan).sum()

    def backward(self, chosen: Any, share: float, noise: Callable[[], tuple[Any, Any]]) -> list[Any]:
        """L_neuron, L_trial and penalty of some trials; the slope of their sum is added to that of z."""
        torch, values = self.torch, self.values()
        simulated, recorded = self.simulate(values, self.inputs[chosen], noise()), self.recorded[chosen]
        held = simulated.detach().requires_grad_()
        neuron, trial = self.neuron_loss(held, recorded, self.belongs[chosen]), torch.zeros(())
        slope = torch.autograd.grad(neuron, held)[0]
        if share > 0.0:
            with torch.no_grad():
                again = self.simulate(values, self.inputs[chosen], noise())
            trial = self.trial_loss(held, again, recorded)
            more = torch.autograd.grad(trial, held)[0]
            slope = slope + share * more * slope.norm() / more.norm()
        M, K, B = (values[name] for name in ("M", "K", "B"))
        penalty = WEIGHTS.weight_penalty * (((M.T @ M) * (K.T @ K)).sum() / len(M) ** 2 + (B**2).sum())
        torch.autograd.backward([simulated, penalty], [slope, torch.ones(())])
        return [neuron, trial, penalty]

    def epoch(self, _: int, share: float) -> None:
        self.begin()
        step = self.session.step
        order = self.torch.randperm(len(self.inputs), generator=self.generator)
        for first in range(0, len(order) - step + 1, step):
            self.optimiser.zero_grad()
            self.backward(order[first : first + step], share, lambda: self.draw(step))
            self.torch.nn.utils.clip_grad_norm_(self.z.values(), 1.0)
            self.optimiser.step()

    def first_step(self, noise: list[tuple[np.ndarray, np.ndarray]]) -> tuple[list[float], np.ndarray]:
        """Losses and slope as `ByJax.first_step`, with its noise."""
        drawn = iter([tuple(self.torch.tensor(each) for each in one) for one in noise])
        losses = self.backward(slice(0, self.session.step), 1.0, lambda: next(drawn))
        return [loss.item() for loss in losses], np.concatenate([each.grad.ravel() for each in self.z.values()])


def _costs(one: Any, other: Any) -> Any:
    """(trial, trial) mean squared difference of smoothed trials."""
    one, other = one.flatten(1), other.flatten(1)
    squares = (one**2).sum(dim=1)[:, None] - 2.0 * one @ other.T + (other**2).sum(dim=1)[None]
    return squares.clamp(min=0.0) / one.shape[1]


def apart(ours: ByJax, other: ByTorch) -> dict[str, float]:
    """The largest relative difference of the three losses, and that of the slope, with the same noise."""
    losses, slope, noise = ours.first_step()
    of_other, its_slope = other.first_step(noise)
    difference = max(abs(its - loss) / abs(loss) for its, loss in zip(of_other, losses, strict=True))
    return {"losses": float(difference), "slope": float(np.linalg.norm(its_slope - slope) / np.linalg.norm(slope))}


def fastest(epochs: dict[str, Callable[[int, float], None]], share: float) -> dict[str, list[float]]:
    """Seconds of the clock and of the processor; epochs take turns, so that other work on the machine meets all."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in epochs}
    for number in range(NUM_EPOCHS + 1):
        for name, epoch in epochs.items():
            clock, processor = time.perf_counter(), time.process_time()
            epoch(number, share)
            taken[name].append((time.perf_counter() - clock, time.process_time() - processor))
    return {name: [min(each) for each in zip(*of_epochs[1:], strict=True)] for name, of_epochs in taken.items()}


def measure(size: dict[str, int]) -> dict[str, Any]:
    session = Session(size)
    ours = ByJax(session)
    row: dict[str, Any] = {"size": list(session.recording.activity.shape), "step": session.step}
    epochs: dict[str, Callable[[int, float], None]] = {"ours": ours.epoch}
    if importlib.util.find_spec("torch") is not None:
        other = ByTorch(session)
        row["apart"] = apart(ours, other)
        epochs["torch"] = other.epoch
    return row | {stage: fastest(epochs, share) for stage, share in STAGES.items()}


def summarise(row: dict[str, Any]) -> None:
    print(f"trials x bins x neurons: {' x '.join(map(str, row['size']))}, steps of {row['step']}")
    print("losses   clock, processor (s)  PyTorch: clock, processor  ratio of clocks, of processors")
    for stage in STAGES:
        ours, torch = row[stage]["ours"], row[stage].get("torch")
        text = f"{stage:7s}  {ours[0]:13.2f}, {ours[1]:5.2f}  "
        if torch is None:
            print(text + "not measured")
        else:
            print(text + f"{torch[0]:18.2f}, {torch[1]:5.2f}  {torch[0] / ours[0]:15.1f}, {torch[1] / ours[1]:.1f}")
    if "apart" in row:
        print("with the same noise apart by: losses {losses:.0e}, slope {slope:.0e}".format(**row["apart"]))


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
