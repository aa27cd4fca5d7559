"""How many stimulation trials does a designed experiment save?

A network is recorded, and then, round by round, patterns are chosen, applied, recorded, and the network is fitted anew
to everything so far. What counts is the error on stimulations that were never applied: the squared error of the
predicted response (at the mode, without feed-through) over the squared response, summed over all of them. Two problems:

- nonlinear: the network of `perturbation.py` (rank 2, K correlated with M), with 30 neurons and 4 conditions, first
  recorded in 8 trials. In a round 4 of 100 candidates, of that benchmark's four classes, are applied once under every
  condition: 16 trials. Held out are 100 other patterns of the same classes; a goal consists of 50 further ones.
- linear: after the synthetic experiment of Wagenmaker et al. 2024 (arXiv:2412.02529), see `low_rank_regression.py`.

The rules: random (drawn from the candidates anew in every round), uniform (all candidates in turn), most uncertain
(the largest predicted variance, in units of the noise), A-optimal (greedily the smallest trace of the posterior
covariance of the whitened parameters), and those of `design_perturbations`, by information and by a goal, with its
25% of random patterns, by the goal without them, and by information with free patterns: of both signs and any number of
neurons, as the candidates have them, at the same power (its random patterns are
ensembles of three neurons). All start from the same recording.

The table has the error by trials, as its mean over seeds, and how many trials random needs to reach the error that a
rule has, divided by the trials of the rule: at the last error of random, with the 5 to 95% interval of 2,000 bootstrap
samples of seeds. All settings of the rules are the defaults. Two networks (seeds 0 and 1) were looked at beforehand
with 60 candidates and 7 rounds, after which the candidates became 100 and the rounds 6; the free patterns were added
when six networks of the other rules had been seen.

    python benchmarks/closed_loop.py --seeds 20
    python benchmarks/closed_loop.py --problem linear --seeds 20
    python benchmarks/closed_loop.py --summary --figure closed_loop.png
    python benchmarks/closed_loop.py --tiny
"""

import argparse
import dataclasses
import time
from collections.abc import Callable, Sequence
from functools import partial

import low_rank_regression as linear
import numpy as np
import perturbation as nonlinear
import stored
from matplotlib.figure import Figure

import lrposterior as lrp
from lrposterior.design.dense import DenseBeliefs
from lrposterior.design.trials import make_setting
from lrposterior.perturbation.experiment import make_experiment

RULES = (
    "random",
    "uniform",
    "most uncertain",
    "A-optimal",
    "information",
    "goal",
    "goal, none random",
    "information, free patterns",
)
PER_ROUND = 4
BOOTSTRAPS = 2000
MODEL = lrp.LowRankModel(rank=2, time_constant=nonlinear.TAU, background=None)


@dataclasses.dataclass(frozen=True)
class Size:
    network: nonlinear.Size
    num_rounds: int


FULL = Size(nonlinear.Size(30, 4, (30, 17, 17, 36), ensemble=3), 6)
TINY = Size(nonlinear.Size(10, 2, (5, 2, 2, 3), ensemble=2), 2)


@dataclasses.dataclass(frozen=True)
class Task:
    """What every rule starts from.

    Attributes:
        truth: parameters of the network.
        pool, goals, held_out: patterns to choose from, to predict, and to be tested on.
        seed: of the network.
    """

    truth: dict[str, np.ndarray]
    pool: lrp.Candidates
    goals: lrp.Candidates
    held_out: lrp.Candidates
    seed: int


def run_seed(size: Size, seed: int, rules: Sequence[str] = RULES) -> dict[str, list[float]]:
    """The errors after every round, by rule."""
    truth, once = nonlinear.make_truth(size.network, seed, None)
    recording = record(truth, np.tile(once.inputs, (2, 1, 1)), None, seed=seed)
    pool, goals, held_out = (nonlinear.make_candidates(once, size.network, seed + 1000 * k)[0] for k in range(3))
    goals = goals.select(np.arange(0, goals.num_candidates, 2))
    task = Task(truth, pool, goals, held_out, seed)
    first = fit(recording)
    return {rule: run_rule(size, task, rule, recording, first) for rule in rules}


def run_rule(size: Size, task: Task, rule: str, recording: lrp.Recording, posterior: lrp.Posterior) -> list[float]:
    errors, inputs = [error_on(task, posterior)], recording.inputs[: size.network.num_conditions]
    for number in range(size.num_rounds):
        patterns = choose(task, rule, number, posterior)
        stimulation = task.pool.time_course[None, :, None] * np.repeat(patterns, len(inputs), axis=0)[:, None, :]
        new = record(
            task.truth,
            np.tile(inputs, (len(patterns), 1, 1)),
            stimulation,
            seed=[task.seed, 1 + RULES.index(rule), number],
        )
        recording = join(recording, new)
        posterior = fit(recording, posterior)
        errors.append(error_on(task, posterior))
    return errors


def record(truth: dict, inputs: np.ndarray, stimulation: np.ndarray | None, *, seed: int | list[int]) -> lrp.Recording:
    shape = (*inputs.shape[:2], len(truth["b"]))
    trials = lrp.Recording(np.zeros(shape), nonlinear.DT, inputs=inputs, stimulation=stimulation)
    one_seed = int(np.random.default_rng(seed).integers(2**31))
    return dataclasses.replace(MODEL, priors=lrp.Priors()).simulate(truth, trials, seed=one_seed)


def join(first: lrp.Recording, second: lrp.Recording) -> lrp.Recording:
    stimulation = [
        np.zeros(each.activity.shape) if each.stimulation is None else each.stimulation for each in (first, second)
    ]
    return lrp.Recording(
        np.concatenate([first.activity, second.activity]),
        first.dt,
        inputs=np.concatenate([first.inputs, second.inputs]),
        stimulation=np.concatenate(stimulation),
    )


def fit(recording: lrp.Recording, previous: lrp.Posterior | None = None) -> lrp.Posterior:
    """A fit, or what was believed before where it fails."""
    try:
        return lrp.fit(MODEL, recording, method=lrp.Laplace(mean="mode"), seed=0, progress=False)
    except lrp.FitError:
        if previous is None:
            raise
        return previous


def error_on(task: Task, posterior: lrp.Posterior) -> float:
    experiment = make_experiment(posterior, task.held_out, None, None)
    wanted, found = (
        nonlinear.respond(posterior.model, parameters, experiment) for parameters in (task.truth, posterior.mode)
    )
    return float(np.sum((wanted - found) ** 2) / np.sum(wanted**2))


def choose(task: Task, rule: str, number: int, posterior: lrp.Posterior) -> np.ndarray:
    """(pattern, neuron) what to apply in a round."""
    pool = task.pool
    per_round = min(PER_ROUND, pool.num_candidates)
    if rule == "random":
        rows = np.random.default_rng([task.seed, number, 9]).choice(pool.num_candidates, per_round, replace=False)
        return pool.patterns[rows]
    if rule == "uniform":
        order = np.random.default_rng([task.seed, 8]).permutation(pool.num_candidates)
        return pool.patterns[order[(per_round * number + np.arange(per_round)) % pool.num_candidates]]
    experiment = make_experiment(posterior, pool, None, None)
    if rule in ("most uncertain", "A-optimal"):
        setting = make_setting(posterior, experiment, pool.patterns, 10**6)
        beliefs = DenseBeliefs.of(setting, experiment.num_conditions)
        informations = np.stack([beliefs.information(pattern) for pattern in pool.patterns])
        pick = most_uncertain if rule == "most uncertain" else a_optimal
        return pool.patterns[pick(beliefs.precision, informations, per_round)]
    bins = np.flatnonzero(pool.time_course)
    is_free = rule == "information, free patterns"
    design = lrp.design_perturbations(
        posterior,
        per_round,
        power=float(pool.power[0]),
        goal=task.goals if rule.startswith("goal") else None,
        candidates="free" if is_free else pool,
        nonnegative=not is_free,
        onset=bins[0] * pool.dt if is_free else None,
        duration=len(bins) * pool.dt if is_free else None,
        trials_per_pattern=experiment.num_conditions,
        random_fraction=0.0 if rule == "goal, none random" else 0.25,
        seed=100 * task.seed + number,
    )
    return design.candidates.patterns


def most_uncertain(precision: np.ndarray, informations: np.ndarray, count: int) -> np.ndarray:
    """Rows with the largest tr(Sigma F), the variance of the activity in units of its noise."""
    covariance = np.linalg.inv(precision)
    return np.argsort(-np.einsum("ij,cij->c", covariance, informations), kind="stable")[:count]


def a_optimal(precision: np.ndarray, informations: np.ndarray, count: int) -> list[int]:
    """Greedily the rows that leave the smallest trace of the covariance."""
    chosen: list[int] = []
    for _ in range(count):
        traces = [np.trace(np.linalg.inv(precision + each)) for each in informations]
        chosen.append(min((row for row in range(len(traces)) if row not in chosen), key=lambda row: traces[row]))
        precision = precision + informations[chosen[-1]]
    return chosen


def saving(errors: dict[str, np.ndarray], rule: str, trials: np.ndarray) -> float:
    """Trials that random needs for its last error, over those that a rule needs for it; inf or below 1 as it comes.

    Args:
        errors: (seed, round) by rule.
        rule: of which.
        trials: (round,) trials so far.
    """
    reference, own = errors["random"].mean(axis=0), errors[rule].mean(axis=0)
    return float(trials[-1] / reached_at(own, reference[-1], trials))


def reached_at(errors: np.ndarray, level: float, trials: np.ndarray) -> float:
    """Trials after which the errors (round,) are at a level for good, between rounds by the logarithm of the error.

    Where that is after the last round the logarithm is continued from its mean slope over all rounds.
    """
    logs, aim = np.log(errors), np.log(level)
    above = np.flatnonzero(logs > aim)
    if not above.size:
        return float(trials[0])
    last = int(above[-1])
    if last == len(logs) - 1:
        slope = (logs[-1] - logs[0]) / (trials[-1] - trials[0])
        return float(trials[-1] + (aim - logs[-1]) / slope) if slope < 0.0 else np.inf
    share = (logs[last] - aim) / (logs[last] - logs[last + 1])
    return float(trials[last] + share * (trials[last + 1] - trials[last]))


def interval(errors: dict[str, np.ndarray], rule: str, trials: np.ndarray) -> tuple[float, float]:
    """5 to 95% of the saving over bootstrap samples of seeds."""
    random, num_seeds = np.random.default_rng(0), len(errors["random"])
    found = []
    for _ in range(BOOTSTRAPS):
        rows = random.integers(num_seeds, size=num_seeds)
        found.append(saving({name: each[rows] for name, each in errors.items()}, rule, trials))
    low, high = np.quantile(found, [0.05, 0.95])
    return float(low), float(high)


def report(problem: str, content: dict) -> None:
    trials, errors = loaded(content)
    print(f"\n{problem}, {len(errors['random'])} seeds; {content.get('seconds', 0):.0f} s of the processor")
    shown = np.unique(np.linspace(0, len(trials) - 1, 5).round().astype(int))
    print(
        "error after trials        " + "".join(f"{int(trials[k]):>8d}" for k in shown) + "   random's trials over own"
    )
    for rule, each in errors.items():
        mean = each.mean(axis=0)
        low, high = interval(errors, rule, trials)
        print(
            f"{rule:26s}"
            + "".join(f"{mean[k]:8.4f}" for k in shown)
            + f"   {saving(errors, rule, trials):.2f} ({low:.2f} to {high:.2f})"
        )


def loaded(content: dict) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Trials (round,), and errors (seed, round) by rule of the seeds that all rules have been through."""
    seeds = [content["seeds"][name] for name in sorted(content["seeds"], key=int)]
    rules = list(seeds[0])
    complete = [one for one in seeds if set(rules) <= set(one)]
    return np.array(content["trials"], float), {rule: np.array([one[rule] for one in complete]) for rule in rules}


def draw(contents: dict[str, dict], path: str) -> None:
    figure = Figure(figsize=(10.0, 3.6 * len(contents)), layout="constrained")
    for row, (problem, content) in enumerate(contents.items()):
        trials, errors = loaded(content)
        left, right = (
            figure.add_subplot(len(contents), 2, 2 * row + 1),
            figure.add_subplot(len(contents), 2, 2 * row + 2),
        )
        for rule, each in errors.items():
            left.semilogy(trials, each.mean(axis=0), marker="o", markersize=3, label=rule)
        count = len(errors["random"])
        left.set(
            title=f"{problem}, mean of {count}", xlabel="stimulation trials", ylabel="error, held-out stimulations"
        )
        left.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)
        rules = [rule for rule in errors if rule != "random"]
        found = np.array([saving(errors, rule, trials) for rule in rules])
        bands = np.array([interval(errors, rule, trials) for rule in rules])
        right.errorbar(found, np.arange(len(rules)), xerr=np.abs(bands.T - found), fmt="o", capsize=3)
        right.axvline(1.0, color="grey", linewidth=0.8)
        right.set_yticks(np.arange(len(rules)), rules)
        right.set(title="at random's last error", xlabel="trials of random / trials of the rule (90%)")
    figure.savefig(path, dpi=150)


def run(
    problem: str,
    name: str,
    trials: list[int],
    count: int,
    rules: Sequence[str],
    one: Callable[[int, Sequence[str]], dict[str, list[float]]],
) -> dict:
    """Run the seeds and rules that are not stored yet, and store after each seed."""
    content = stored.load(name) if stored.exists(name) else {"seeds": {}, "seconds": 0.0}
    for seed in range(count):
        known = content["seeds"].get(str(seed), {})
        missing = [rule for rule in rules if rule not in known]
        if not missing:
            continue
        started = time.process_time()
        content["seeds"][str(seed)] = known | one(seed, missing)
        content["seconds"] += time.process_time() - started
        content["trials"] = trials
        stored.store(name, **{key: value for key, value in content.items() if key != "machine"})
        print(f"{problem}, seed {seed}: {time.process_time() - started:.0f} s", flush=True)
    return content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problem", choices=("nonlinear", "linear"), default="nonlinear")
    parser.add_argument("--seeds", type=int, default=15, help="how many networks")
    parser.add_argument("--summary", action="store_true", help="print what is stored")
    parser.add_argument("--figure", help="draw what is stored into this file")
    parser.add_argument("--tiny", action="store_true", help="small problems, nothing is stored")
    options = parser.parse_args()
    if options.tiny:
        per_round = PER_ROUND * TINY.network.num_conditions
        trials = [per_round * number for number in range(TINY.num_rounds + 1)]
        report("nonlinear", {"seeds": {str(seed): run_seed(TINY, seed) for seed in range(2)}, "trials": trials})
        content = {"seeds": {str(seed): linear.run_seed(linear.TINY, seed) for seed in range(2)}}
        report("linear", content | {"trials": linear.TINY.trials})
        return
    names = {"nonlinear": "closed_loop", "linear": "closed_loop_linear"}
    if not (options.summary or options.figure):
        per_round = PER_ROUND * FULL.network.num_conditions
        trials, rules, one = [per_round * k for k in range(FULL.num_rounds + 1)], RULES, partial(run_seed, FULL)
        if options.problem == "linear":
            trials, rules, one = linear.FULL.trials, linear.RULES, partial(linear.run_seed, linear.FULL)
        report(options.problem, run(options.problem, names[options.problem], trials, options.seeds, rules, one))
        return
    contents = {problem: stored.load(name) for problem, name in names.items() if stored.exists(name)}
    for problem, content in contents.items():
        report(problem, content)
    if options.figure:
        draw(contents, options.figure)


if __name__ == "__main__":
    main()
