"""Options that say what a recording holds and which model it is fitted with."""

from __future__ import annotations

from typing import Annotated

import typer

KIND_AND_FIELDS = "KIND[,FIELD=VALUE...]"
Names = Annotated[
    list[str] | None,
    typer.Option(
        "--name",
        metavar="ARGUMENT=VARIABLE",
        help="Of a .mat file, which variable is which: activity=fr, inputs=session.u; inputs= leaves them out. "
        "Give it several times. Default: by common names, which are shown.",
    ),
]
Axes = Annotated[
    str | None,
    typer.Option(
        metavar="AXIS,AXIS,AXIS",
        help="Of a .mat file, the order of MATLAB's size, as neuron,time,trial. Default: trial,time,neuron.",
    ),
]
BinWidth = Annotated[float | None, typer.Option(help="Of a .mat file, the width of a bin, in s.")]
Clip = Annotated[
    float | None,
    typer.Option(
        metavar="PERCENTILE",
        help="Clip entries that are twice as far from a neuron's median as this percentile, for instance 99.9, and "
        "print what was clipped.",
    ),
]
Hidden = Annotated[
    list[str] | None,
    typer.Option(
        "--hidden",
        metavar="TYPE=NUMBER",
        help="Under Dale's law, neurons of a type that were not recorded: E=8. Give it several times. They follow the "
        "recorded ones.",
    ),
]
TimeConstant = Annotated[
    str,
    typer.Option(
        metavar="TIME|TYPE=TIME,TYPE=TIME",
        help="Time constant of the neurons, in s; at least the width of a bin. By cell type: E=0.1,I=0.05; one for "
        "every neuron: neuron,each=0.1. An inferred one has the median and spread of its prior: E.median=0.1,I=0.05. "
        "As a = dt / tau: a=0.5, or E.a=0.5,I.a.median=0.7.",
    ),
]
InferTimeConstant = Annotated[
    bool, typer.Option("--infer-time-constant", help="Infer all of it, with the numbers of --time-constant as medians.")
]
Embedding = Annotated[
    str,
    typer.Option(
        metavar="KIND[,FIELD=VALUE...]|EMBEDDING.npz",
        help="Features in the place of the inputs: none; lags,lags=2 (also those of bins before); polynomial (also "
        "squares and products); random,width=28,seed=0 or learned,width=28,seed=0 (a rectified layer); or the file of "
        "an earlier fit.",
    ),
]
InitialState = Annotated[str, typer.Option(help="State at the start of a trial: zero, or free (inferred).")]
ProcessNoise = Annotated[
    str,
    typer.Option(
        metavar=KIND_AND_FIELDS,
        help="Noise that drives the latents of single trials: none, diagonal or full; full,scale=0.3 gives the median "
        "of its scale.",
    ),
]
HiddenNeurons = Annotated[
    str,
    typer.Option(
        metavar="NUMBER|SHARE",
        help="Neurons that were not recorded, or their share; with --background none. Under Dale's law: --hidden.",
    ),
]
Drift = Annotated[
    bool, typer.Option("--drift", help="Neurons are seen with an offset and a scale of their own in every session.")
]
Nonlinearity = Annotated[str, typer.Option(help="From current to rate: tanh, relu, softplus or linear.")]
Observe = Annotated[
    str,
    typer.Option(
        metavar=KIND_AND_FIELDS,
        help="What the activity is: rate, current, spike-rate (spikes/s), count (Poisson), overdispersed-count, or "
        "calcium,decay_time=0.5 (s).",
    ),
]
KnownBackground = Annotated[
    str,
    typer.Option(
        metavar="KIND[,FIELD=VALUE...]|W0.npy",
        help="Connectivity beside the low-rank part: bulk (unknown and unstructured), signed (unknown, with --loadings "
        "dale; signed,scale.E=1.0,scale.I=4.0), none, or a file with a known matrix (post, pre), .npy or .npz of "
        "scipy.sparse.save_npz.",
    ),
]
Loadings = Annotated[
    str,
    typer.Option(
        metavar=KIND_AND_FIELDS,
        help="correlated: a neuron's K depends on its other loadings; independent; or dale: Dale's law, with softplus, "
        "without a background or with a signed one. Scales and magnitudes are fields: "
        "dale,K.E=1.5,K.I=6.0,magnitudes=log-normal,spread=1.0. K.E.median=1.5,K.I.median=6.0 are inferred.",
    ),
]
NoSelfConnections = Annotated[
    bool, typer.Option("--no-self-connections", help="With --loadings dale: no neuron drives itself.")
]
