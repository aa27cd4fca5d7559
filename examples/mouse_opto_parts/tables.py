"""The tables that the page includes."""

from __future__ import annotations

from page_parts.tables import between_comments, interval, number, table

REFERENCES = {
    "mean": "each neuron's mean",
    "levels": "each neuron's mean before and during the light",
    "population": "average courses of E and of I, scaled to each neuron",
    "levels_two_scales": "as the second, with noise scales of their own before and during the light",
}
CHECKS = {
    "before_over_during": "residuals before over during the light (standard deviation, median neuron)",
    "beyond_three": "residuals beyond 3 noise scales (share)",
    "autocorrelation": "correlation of the residuals of consecutive bins",
    "negative": "negative rates (share)",
}
KNOWN_SIGNS = {
    "E → E": "+", "E → I": "+", "I → E": "−", "I → I": "−", "light → E": "0", "light → I": "+",
}  # fmt: skip


def as_markdown(results: dict) -> str:
    """Every table between two comments with its name, for pages that include one at a time."""
    parts = {
        "data": _data(results),
        "prediction": _prediction(results),
        "noise": _noise(results["noise"]),
        "connectivity": _connectivity(results["connectivity"]),
        "drives": _drives(results),
        "ranking": _ranking(results["rankings"]),
    }
    return between_comments(parts)


def _data(results: dict) -> str:
    data, found, kept = results["data"], results["data"]["num_found"], results["data"]["num_kept"]
    fewest, most = data["num_averaged"]
    return (
        f"{kept['E'] + kept['I']} neurons are fitted: {kept['E']} of {found['E']} E and {kept['I']} of {found['I']} "
        f"I cells; "
        f"those that fired fewer than {data['lowest_rate']:g} spikes/s on average are left out. They come from "
        f"{data['num_recordings']} recordings in {data['num_mice']} mice, and each rate is the average of {fewest:g} "
        f"to "
        f"{most:g} trials. One average trial of {data['num_bins']} bins of 10 ms is all there is."
    )


def _prediction(results: dict) -> str:
    blocks, end = results["blocks"], results["end"]
    rows = []
    for name, label in REFERENCES.items():
        rows.append([label, *(_score(one["references"].get(name)) for one in (blocks, end))])
        if name == "population":
            for rank, scores in blocks["ranks"].items():
                rows.append([f"**network of rank {rank}**", _score(scores), _score(end["ranks"].get(rank))])
    rows.append(["ceiling: noise of spike counts", f"{blocks['ceiling']:.2f}", f"{end['ceiling']:.2f}"])
    chosen = blocks["ranks"][str(results["rank"])]
    text = ""
    if "failure" not in chosen:
        gain = chosen["advantage"]
        mean, error = number(gain["mean"]), number(gain["standard_error"])
        before, first, later = (number(gain["by_epoch"][name]) for name in ("before", "first_100_ms", "later"))
        text = (
            f"\n\nOver the two means, rank {results['rank']} gains {mean} ± {error} nats an entry on the hidden blocks "
            f"(± standard error over neurons): {before} before the light, {first} in the first 100 ms after it came "
            f"on, and {later} later. "
        )
    evidences = [
        f"{number(scores['log_evidence'], 0)} (rank {rank})"
        for rank, scores in blocks["ranks"].items()
        if scores.get("log_evidence") is not None
    ]
    text += f"Log evidence of the entries that were fitted, in nats: {', '.join(evidences)}."
    return table(["explained variance (log predictive density, nats)", "blocks of 40 ms", "last 100 ms"], rows) + text


def _score(scores: dict | None) -> str:
    if scores is None:
        return "–"
    if "failure" in scores:
        return scores["failure"]
    return f"{number(scores['explained_variance'])} ({number(scores['log_density'])})"


def _noise(noise: dict) -> str:
    rows = []
    for name, label in CHECKS.items():
        recorded, (low, high) = noise[name]["recorded"], noise[name]["replicated"]
        if label.endswith("(share)"):
            rows.append([label, f"{100 * recorded:.1f}%", f"{100 * low:.1f} to {100 * high:.1f}%"])
        else:
            rows.append([label, number(recorded), f"{number(low)} to {number(high)}"])
    return table(["", "recorded", "if the model were right (90%)"], rows) + (
        f"\n\nThe variance over bins is {noise['over_counts_before']:.1f} times that of spike counts before the "
        f"light and "
        f"{noise['over_counts_during']:.1f} times during it (median neuron)."
    )


def _connectivity(numbers: dict) -> str:
    above = numbers["variance_removed_above"]
    rows = [
        ["synapses, entries of W", f"{numbers['num_synapses']:,}"],
        ["directions in which a W of this rank can change", str(numbers["num_directions"])],
        ["… constrained: the data say at least as much as the prior", f"**{numbers['num_constrained']}**"],
        ["… degenerate: left to the prior", f"**{numbers['num_degenerate']}**"],
        ["information about W", f"{numbers['information']:.0f} nats"],
        ["patterns of rates that hold 99.9% of the activity", str(numbers["num_rate_patterns"])],
        [
            "share of all that was learnt on as many presynaptic patterns as the rank",
            _percent(numbers["read_share"]),
        ],
        ["prior variance removed from the median synapse", _percent(numbers["variance_removed_median"])],
        *(
            [f"synapses with more than {_percent(float(share))} removed", _percent(value)]
            for share, value in above.items()
        ),
        ["synapses whose sign is known (90% interval without 0)", f"**{100 * numbers['sign_known']:.1f}%**"],
        ["effective rank of W, 90% interval", interval(numbers["effective_rank"])],
        ["largest eigenvalue of W (magnitude), 90% interval", interval(numbers["spectral_radius"])],
        ["time constant at the mode", f"{1000 * numbers['time_constant']:.1f} ms, in bins of 10 ms"],
    ]
    text = ""
    if len(numbers["mode_log_evidences"]) > 1:
        best, *rest = numbers["mode_log_evidences"]
        text = (
            f"\n\n{sum(numbers['mode_counts'])} starts of the fit (one from the data, the others from the prior) found "
            f"{1 + len(rest)} modes; the log evidence of the one that is shown is higher by "
            f"{best - max(rest):.0f} nats than that of the next."
        )
    return table(["", ""], rows) + text


def _drives(results: dict) -> str:
    others = results["other_fits"]
    hidden = next(one for name, one in others.items() if name.startswith("first"))
    rows = [
        [
            name,
            interval(drive["posterior"]),
            _percent(drive["positive"]),
            interval(hidden["drives"][name]["posterior"]),
            interval(drive["prior"]),
            KNOWN_SIGNS[name],
        ]
        for name, drive in results["drives"].items()
    ]
    header = ["drive", "posterior", "P(positive)", "without the first 10 ms", "prior", "anatomy and opsin"]
    listed = [f"{one['correlation']:.2f} ({name})" for name, one in others.items()]
    return table(header, rows) + (
        "\n\nCorrelation of the posterior mean of W, over all synapses, with that of other fits: "
        + ", ".join(listed)
        + "."
    )


def _ranking(rankings: dict) -> str:
    rows = []
    for light, classes in rankings.items():
        for name, one in classes["classes"].items():
            r2 = one["expected_r2"]
            rows.append(
                [
                    f"{name}, {light}",
                    str(one["num_candidates"]),
                    f"{r2['median']:.2f} ({r2['lowest']:.2f} to {r2['highest']:.2f})",
                    _percent(one["above_half"]),
                    _percent(one["share_degenerate"]),
                    f"{_percent(one['sure_fall'])} / {_percent(one['sure_rise'])}",
                ]
            )
    header = [
        "stimulation",
        "candidates",
        "expected R²: median (range)",
        "above 0.5",
        "uncertainty from degenerate directions",
        "mean E rate surely falls / rises",
    ]
    best = [
        f"{light}, the mean E rate changes by {number(one['ten_best']['readout'])} spikes/s and the cosine of the "
        f"predicted change of all rates with that by the light is {number(one['ten_best']['cosine_with_light'])}"
        for light, one in rankings.items()
    ]
    return table(header, rows) + f"\n\nOf the ten most certain stimulations of all, in the median: {'; '.join(best)}."


def _percent(share: float) -> str:
    return f"{100.0 * share:.0f}%"
