"""The tables of the page."""

from __future__ import annotations

from page_parts.tables import between_comments, interval, number, table

NAMES = {"likelihood": "likelihood", "matching": "matching", "naive": "matching, without a scale"}
CONFIGURATIONS = {
    "half-normal": "without a scale, half-normal weights, untrained",
    "naive": "without a scale, untrained",
    "naive, fitted": "without a scale, matched",
    "default": "default, untrained",
    "default, fitted": "default, fitted",
    "naive, z-scored": "without a scale, descent on z-scored averages",
    "default, matched": "default, matched",
}
# Rows of the comparison: a title, the statistic of the recording, and that of the simulation.
STATISTICS = (
    ("mean rate (spikes per bin)", "mean", 3),
    ("temporal sd of averages", "temporal sd", 3),
    ("sd of trials", "trial sd", 3),
    ("correlation of neurons between trials", "shared", 3),
)


def as_markdown(results: dict) -> str:
    return between_comments(
        {
            "session": of_session(results["session"]),
            "diagnosis": of_diagnosis(results["diagnosis"]),
            "collapse": of_collapse(results["collapse"]),
            "comparison": of_comparison(results["comparison"]),
            "runaways": f"{100.0 * results['runaways']:.1f}% of the draws ran away and were left out.",
            "parameters": of_parameters(results),
            "degeneracy": of_degeneracy(results["degeneracy"]),
            "perturbations": of_perturbations(results),
        }
    )


def of_session(session: dict) -> str:
    return (
        f"{session['fitted']} trials are fitted and {session['held_out']} held out, at a mean rate of "
        f"{number(session['mean'], 1)} spikes/s. {session['clipped']} entries were clipped; the largest was "
        f"{session['largest']:.0f} spikes/s."
    )


def of_diagnosis(diagnosis: dict) -> str:
    rows = [
        [
            CONFIGURATIONS[name],
            number(one["level"], 1),
            number(one["sd"], 2),
            ", ".join(one["verdicts"]) or "none",
        ]
        for name, one in diagnosis.items()
    ]
    recorded = next(iter(diagnosis.values()))
    rows.append(["recorded", number(recorded["recorded"], 1), number(recorded["recorded sd"], 2), ""])
    return table(["network", "mean rate (spikes/s)", "temporal sd of averages", "verdicts"], rows)


def of_collapse(collapse: dict) -> str:
    first, last = (number(loss) for loss in collapse["losses"])
    return (
        f"{of_diagnosis(collapse['networks'])}\n\n"
        f"The descent is over {collapse['trials']} trials, and its loss falls from {first} to {last}."
    )


def of_comparison(comparison: dict) -> str:
    fits = list(comparison.values())
    rows = [
        ["correlation of averages", "", *(bounds(one["correlation"], 3) for one in fits)],
        ["its ceiling", number(fits[0]["ceiling"][0], 3), *("" for _ in fits)],
        ["correlation over ceiling", "", *(bounds(one["correlation over ceiling"], 3) for one in fits)],
    ]
    for title, name, digits in STATISTICS:
        seen = [bounds(one[f"{name} simulated"], digits) for one in fits]
        rows.append([title, bounds(fits[0][name], digits), *seen])
    rows.append(["agreement of shared covariances", "", *(bounds(one["shared agreement"], 2) for one in fits)])
    rows.append(["distance of trials", "", *(bounds(one["distance"], 3) for one in fits)])
    rows.append(["bits per spike", "", *(bounds(one["bits per spike"], 3) for one in fits)])
    return table(["held-out trials", "recorded", *(NAMES[name] for name in comparison)], rows)


def bounds(values: list[float], digits: int) -> str:
    middle, lower, upper = values
    return interval((lower, middle, upper), digits)


def of_parameters(results: dict) -> str:
    fits = {name: results[name] for name in ("likelihood", "matching")}
    true, rows = results["truth"], []
    for name, value in true["integration_constants"].items():
        found = [interval(one["integration_constants"][name], 3) for one in fits.values()]
        rows.append([f"a of {name}", number(value, 2), *found])
    for name, value in true["means"].items():
        rows.append(
            [f"mean weight {name}", number(value, 3)]
            + [interval(one["connectivity"]["means"][name], 3) for one in fits.values()]
        )
    for name in true["means"]:
        held = [number(one["connectivity"]["cover"][name]) for one in fits.values()]
        rows.append([f"90% intervals of {name} that hold the synapse", "", *held])
    rows.append(["all synapses", "", *(number(one["connectivity"]["all"]) for one in fits.values())])
    correlations = [number(one["connectivity"]["correlation"]) for one in fits.values()]
    rows.append(["correlation of W with the truth", "", *correlations])
    return table(["", "truth", *(NAMES[name] for name in fits)], rows)


def of_degeneracy(found: dict) -> str:
    lower, middle, upper = (number(value) for value in found["removed"])
    return table(
        ["directions of W", ""],
        [
            ["constrained: the data say more than the prior", str(found["constrained"])],
            ["degenerate: the prior says more", str(found["degenerate"])],
            ["effective parameters", number(found["effective"], 1)],
            ["gauge, counted apart", str(found["gauge"])],
            ["variance removed of a synapse: median, 5% to 95% of synapses", f"{middle}, {lower} to {upper}"],
        ],
    )


def of_perturbations(results: dict) -> str:
    fits = {name: results[name]["perturbations"] for name in ("likelihood", "matching")}
    rows = [
        [
            f"90% intervals of responses to {name} that hold the truth",
            *(number(one["cover"][name]) for one in fits.values()),
        ]
        for name in fits["likelihood"]["cover"]
    ]
    labels = fits["likelihood"]["labels"]
    for title, places in (
        ("all E", [labels.index("all E")]),
        ("all I", [labels.index("all I")]),
        ("E ensembles, mean", [place for place, label in enumerate(labels) if label.startswith("E ensemble")]),
        ("I ensembles, mean", [place for place, label in enumerate(labels) if label.startswith("I ensemble")]),
    ):
        expected = [fits["likelihood"]["expected"][place] for place in places]
        rows.append([f"R² that was promised: {title}", number(sum(expected) / len(expected)), ""])
        achieved = [sum(one["achieved"][place] for place in places) / len(places) for one in fits.values()]
        rows.append([f"R² that was reached: {title}", *(number(value) for value in achieved)])
    return table(["", *(NAMES[name] for name in fits)], rows)
