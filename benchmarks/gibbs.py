"""Do intervals of generalised posteriors of the losses of `Match` hold the truth, and at which beta?

    python benchmarks/gibbs.py              run it and store the results
    python benchmarks/gibbs.py --summary    print what is stored
    python benchmarks/gibbs.py --tiny       one simulated session of each kind at one beta, which is not stored

Sessions of `simulate_session` with 12 neurons (9 E, 3 I), 2 inputs and 48 trials of 70 bins, fitted by its model: rank
3, process noise, Poisson counts. `calibrate_beta` simulates sessions of networks of the prior like the first of them;
then the sessions themselves, whose networks are not of the prior, are fitted at the same beta: by this model
("session"), and with scales of K that are inferred ("scales"). 90% intervals of the mean weights of each pair of types,
and of the mean responses of a type to the stimulation of all neurons of a type.
"""

import argparse
import dataclasses

import numpy as np
import stored

import lrposterior as lrp
from lrposterior.beta_calibration import NUM_DRAWS, mean_weights_and_responses
from lrposterior.calibration import Networks
from lrposterior.inference.gibbs import around_match
from lrposterior.inference.match import match_networks
from lrposterior.simulated_session import MODEL

NAME = "gibbs"
BETAS, NUM_SESSIONS, SEEDS = (3.0, 10.0, 30.0, 100.0, 300.0), 6, (1, 2, 3, 4)
INFERRED = {"E": lrp.ScalePrior(1.5, 1.0), "I": lrp.ScalePrior(6.0, 1.0)}
MODELS = {"session": MODEL, "scales": dataclasses.replace(MODEL, priors=dataclasses.replace(MODEL.priors, K=INFERRED))}
KINDS = "prior", *MODELS


def session(seed: int) -> lrp.Simulation:
    return lrp.simulate_session(
        num_trials=48, num_bins=70, num_excitatory=9, num_inhibitory=3, num_inputs=2, num_outliers=0, seed=seed
    )


def method(recording: lrp.Recording, tiny: bool) -> lrp.Gibbs:
    warm_up, num_epochs = (2, 6) if tiny else (50, 300)
    match = lrp.Match(
        conditions=recording.trial_labels,
        validation=0.0,
        learning_rate=0.02,
        warm_up=warm_up,
        ramp=warm_up,
        num_epochs=num_epochs,
    )
    return lrp.Gibbs(beta=1.0, match=match, num_steps=200 if tiny else 1200)


def of_prior(betas: tuple[float, ...], num_sessions: int, tiny: bool) -> list[dict]:
    """Cover of networks of the prior, a row for every beta and quantity."""
    recording = session(SEEDS[0]).recording
    found = lrp.calibrate_beta(
        MODEL, recording, method(recording, tiny), betas=betas, num_sessions=num_sessions, seed=0, progress=False
    )
    print(found)
    refused = [
        {"kind": "prior", "beta": beta, "session": one, "refused": reason}
        for (one, beta), reason in found.refusals.items()
    ]
    return refused + [
        {"kind": "prior", "beta": beta, "session": one, "quantity": name, "held": bool(found.held[one, row, column]),
         "width": float(found.width[one, row, column])}
        for one in range(num_sessions)
        for row, beta in enumerate(found.betas.tolist())
        for column, name in enumerate(found.quantities)
        if (one, beta) not in found.refusals
    ]  # fmt: skip


def of_session(kind: str, seed: int, betas: tuple[float, ...], tiny: bool) -> list[dict]:
    """Intervals of one session of `simulate_session`, a row for every beta and quantity."""
    truth, model, rows = session(seed), MODELS[kind], []
    recording = truth.recording
    options = method(recording, tiny)
    try:
        matched = match_networks(model, recording, options.match, seed=0, progress=False)
    except lrp.FitError as failure:
        return [{"kind": kind, "beta": beta, "session": seed, "refused": str(failure)} for beta in betas]
    for beta in betas:
        try:
            posterior = around_match(matched, dataclasses.replace(options, beta=beta), seed=0, progress=False)
        except lrp.FitError as failure:
            rows.append({"kind": kind, "beta": beta, "session": seed, "refused": str(failure)})
            continue
        drawn = mean_weights_and_responses(
            Networks(posterior.model, posterior.sample_parameters(NUM_DRAWS, seed=0), recording)
        )
        parameters = {name: value[None] for name, value in truth.parameters.items()}
        true = mean_weights_and_responses(Networks(posterior.model, parameters, recording))
        for name, values in drawn.items():
            below = np.count_nonzero(values < true[name])
            held = abs((below + 0.5) / (NUM_DRAWS + 1) - 0.5) < 0.45
            nearer = abs(np.median(values)) < abs(true[name][0])
            rows.append(
                {"kind": kind, "beta": beta, "session": seed, "quantity": name, "held": bool(held),
                 "nearer": bool(nearer), "seconds": posterior.statistics.wall_time}
            )  # fmt: skip
    return rows


def summarise(results: list[dict]) -> None:
    print("truths   beta    sessions  refused  cover: all (se), mean weights, responses  width over the prior's")
    for kind in KINDS:
        for beta in sorted({row["beta"] for row in results if row["kind"] == kind}):
            rows = [row for row in results if (row["kind"], row["beta"]) == (kind, beta)]
            done = [row for row in rows if "refused" not in row]
            sessions = {row["session"] for row in rows}
            refused = sessions - {row["session"] for row in done}
            print(f"{kind:7s}  {beta:6g}  {len(sessions):8d}  {len(refused):7d}", end="")
            if not done:
                print()
                continue
            fitted = sessions - refused
            by_session = [np.mean([row["held"] for row in done if row["session"] == one]) for one in fitted]
            weights, others = (
                [row["held"] for row in done if row["quantity"].startswith("W[") is wanted] for wanted in (True, False)
            )
            error = np.std(by_session) / np.sqrt(len(by_session))
            print(f"  {np.mean(by_session):.2f} ({error:.2f}), {np.mean(weights):.2f}, {np.mean(others):.2f}", end="")
            widths = [row["width"] for row in done if "width" in row]
            print(f"  {np.median(widths):.2f}" if widths else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--summary", action="store_true", help="print what is stored")
    parser.add_argument("--tiny", action="store_true", help="one session of each kind at one beta; not stored")
    options = parser.parse_args()
    if options.summary:
        summarise(stored.load(NAME)["results"])
        return
    if options.tiny:
        summarise(of_prior((30.0,), 1, True) + of_session("session", SEEDS[0], (30.0,), True))
        return
    results = of_prior(BETAS, NUM_SESSIONS, False)
    results += [row for kind in MODELS for seed in SEEDS for row in of_session(kind, seed, BETAS, False)]
    summarise(results)
    stored.store(NAME, results=results)


if __name__ == "__main__":
    main()
