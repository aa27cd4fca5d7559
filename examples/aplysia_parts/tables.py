"""The tables that the page includes."""

from __future__ import annotations

from page_parts.tables import between_comments, interval, number, table

BASELINES = {
    "history": "each neuron's own smoothed history",
    "glm": "GLM on the smoothed history of all neurons, ridge",
    "linear_system": "linear dynamical system (Gaussian, square roots)",
    "average": "average of the training responses (PSTH)",
}


def as_markdown(results: dict) -> str:
    """Every table between two comments with its name, for pages that include one at a time."""
    by_name = results["preparations"]
    parts = {
        "data": _data(by_name),
        "prediction": _prediction(by_name),
        "tried": _tried(by_name),
        "choice": _choice(by_name),
        "ranks": _ranks(by_name),
        "spectra": _spectra(by_name),
        "connectivity": _connectivity(by_name),
        "ranking": _ranking(by_name),
    }
    return between_comments(parts)


def _data(by_name: dict) -> str:
    rows = []
    for name, one in by_name.items():
        data = one["data"]
        rows.append(
            [
                name,
                f"{data['num_neurons']} ({data['num_hidden']})",
                " / ".join(f"{rate:.2f}" for rate in data["rates"]),
                *(f"{value:.2f}" for value in data["rate_correlation"]),
            ]
        )
    header = ["preparation", "neurons (hidden)", "mean rates (spikes/s)", "correlation, 1 and 2", "1 + 2 and 3"]
    first = next(iter(by_name.values()))["data"]
    return table(header, rows) + (
        f"\n\nEach response has {first['num_bins']} bins of 0.1 s; {first['num_validation']} of the "
        f"{2 * first['num_bins']} bins to learn from are in validation blocks. The correlations are those of the "
        "neurons' mean rates: between the first two responses, and of these with the third."
    )


def _prediction(by_name: dict) -> str:
    rows = []
    for key, label in BASELINES.items():
        rows.append([label, *(cell for one in by_name.values() for cell in _baseline(one["baselines"], key))])
    rows.append(
        [
            "**network with process noise**, rank chosen in validation blocks",
            *(cell for one in by_name.values() for cell in _network(one)),
        ]
    )
    header = [
        "bits per spike in the third response",
        *(f"{name}, {task}" for name in by_name for task in ("one step", "hidden neurons")),
    ]
    return table(header, rows)


def _baseline(baselines: dict, key: str) -> list[str]:
    of_task = (baselines.get("glm_ahead"), baselines.get("glm_hidden")) if key == "glm" else (baselines.get(key),) * 2
    return [
        _number(None if one is None else one["test"][task])
        for one, task in zip(of_task, ("ahead", "hidden"), strict=True)
    ]


def _network(one: dict) -> list[str]:
    if "rank" not in one:
        return ["no fit", "no fit"]
    test = one["networks"][str(one["rank"])]["test"]
    return [f"**{_number(test[task])}** (rank {one['rank']})" for task in ("ahead", "hidden")]


def _tried(by_name: dict) -> str:
    """What validation chose, and what the test would have."""
    rows = []
    for name, one in by_name.items():
        for key, chosen in one["baselines"].items():
            task = "hidden" if key == "glm_hidden" else "ahead"
            best = max(chosen["tried"], key=lambda tried: tried["test"][task])
            rows.append(
                [
                    name,
                    BASELINES[key.removesuffix("_ahead").removesuffix("_hidden")]
                    + (", hidden neurons" if task == "hidden" else ""),
                    _settings(chosen["settings"]),
                    _number(chosen["validation"][task]),
                    _number(chosen["test"][task]),
                    f"{_number(best['test'][task])} ({_settings(best['settings'])})",
                ]
            )
    header = ["", "baseline", "chosen in the blocks", "there", "third response", "best of those tried there"]
    return table(header, rows)


NAMES = {
    "time_constant": "time constant {:g} s",
    "width": "width {:g} s",
    "penalty": "penalty {:g}",
    "num_latents": "{:d} latents",
}


def _settings(settings: dict) -> str:
    return ", ".join(NAMES[name].format(value) for name, value in settings.items() if name in NAMES)


def _choice(by_name: dict) -> str:
    """Held-out density of the blocks for everything that the network might have been."""
    rows = []
    for name, one in by_name.items():
        for tried in one["choice"]["tried"]:
            settings = tried["settings"]
            chosen = "**" if settings == one["choice"]["settings"] else ""
            cells = [
                name,
                settings["observation"],
                "drift" if settings["drift"] else "none",
                f"{settings['time_constant']:g}",
                "refused" if tried["density"] is None else _number(tried["density"]),
            ]
            rows.append([f"{chosen}{cell}{chosen}" for cell in cells])
    return table(["", "counts", "between responses", "time constant (s)", "density, blocks"], rows)


# What a fit that refuses says first, and what it means.
FAILURES = {"rank": "not supported by the data"}


def _ranks(by_name: dict) -> str:
    rows = []
    for name, one in by_name.items():
        for rank, fit in one["networks"].items():
            chosen = "**" if str(one.get("rank")) == rank else ""
            if "failure" in fit:
                rows.append(
                    [
                        name,
                        rank,
                        FAILURES.get(fit["failure"], fit["failure"]),
                        *[""] * 7,
                        f"{fit['seconds'] / 60.0:.0f}",
                    ]
                )
                continue
            rows.append(
                [
                    name,
                    f"{chosen}{rank}{chosen}",
                    *(_number(fit["density"][part]) for part in ("validation", "test")),
                    *(_number(fit[part][task]) for task in ("ahead", "hidden") for part in ("validation", "test")),
                    f"{fit['noise']:.2f}",
                    f"{fit['autocorrelation']:.3f}",
                    f"{fit['seconds'] / 60.0:.0f}",
                ]
            )
    header = [
        "", "rank", "density, blocks", "density, third", "one step, blocks", "third", "hidden, blocks", "third",
        "noise in a bin", "errors of neighbouring bins", "minutes",
    ]  # fmt: skip
    return table(header, rows)


def _spectra(by_name: dict) -> str:
    rows = []
    for name, one in by_name.items():
        if "spectra" not in one:
            continue
        spectra = one["spectra"]
        training = " / ".join(f"{value:.2f}" for value in spectra["peak_training"])
        rows.append(
            [
                name,
                f"{training} / {spectra['peak_test']:.2f}",
                interval(spectra["peak_free"]),
                interval(spectra["distance_free"], 1),
                " / ".join(f"{value:.1f}" for value in spectra["distance_training"]),
                f"{spectra['distance_poisson']:.1f}",
                f"{spectra['rate_test']:.2f}",
                interval(spectra["rate_free"]),
            ]
        )
    header = [
        "", "peak (Hz), responses 1 / 2 / 3", "free runs", "distance from 3 (dB), free runs", "responses 1 / 2",
        "constant rates", "mean rate (spikes/s), 3", "free runs",
    ]  # fmt: skip
    return table(header, rows)


def _connectivity(by_name: dict) -> str:
    rows = []
    for name, one in by_name.items():
        if "connectivity" not in one:
            continue
        numbers = one["connectivity"]
        rows.append(
            [
                f"{name}, rank {one['rank']}",
                str(numbers["num_directions"]),
                f"{numbers['num_constrained']} / {numbers['num_degenerate']}",
                f"{numbers['information']:.0f}",
                f"{100 * numbers['variance_removed_median']:.0f}%",
                f"{100 * numbers['sign_known']:.0f}%",
                interval(numbers["largest_step"], 3),
                f"{100 * numbers['unstable']:.0f}%",
                interval(numbers["frequency"], 3),
            ]
        )
    header = [
        "", "directions of W", "constrained / degenerate", "information (nats)", "variance removed, median synapse",
        "signs known", "slowest latent, factor per bin", "above 1", "its frequency (Hz)",
    ]  # fmt: skip
    return table(header, rows)


def _ranking(by_name: dict) -> str:
    rows = []
    for name, one in by_name.items():
        for kind, numbers in one.get("ranking", {"classes": {}})["classes"].items():
            low, middle, high = numbers["expected_r2"]
            rows.append(
                [
                    name,
                    f"{kind} ({numbers['num_candidates']})",
                    f"{middle:.2f} ({low:.2f} to {high:.2f})",
                    f"{100 * numbers['share_degenerate']:.0f}%",
                    f"{100 * numbers['noise_share']:.0f}%",
                    f"{100 * numbers['sign_sure']:.0f}%",
                ]
            )
    header = [
        "", "stimulation (candidates)", "expected R²: median (range)", "uncertainty from degenerate directions",
        "noise in one trial", "sign of the mean current sure",
    ]  # fmt: skip
    return table(header, rows)


def _number(value: float | None) -> str:
    """Bits per spike; a dash where there are none."""
    return "–" if value is None else number(value, 3)
