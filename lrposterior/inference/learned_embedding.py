"""A rectified layer of the inputs that is learned together with a network that matches a recording, and then kept."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import numpy as np
import threadpoolctl

from lrposterior.checks import require_instance, require_integer
from lrposterior.inference import loadings
from lrposterior.inference.match import Match, best_course, matching_problem, require_suitable, split_trials, train
from lrposterior.inference.match_start import match_start
from lrposterior.inference.problem import ScaledProblem
from lrposterior.input_embedding import InputEmbedding, LearnedEmbedding, RandomEmbedding, embed_inputs
from lrposterior.matching.simulated_trials import PROJECTION
from lrposterior.model import LowRankModel
from lrposterior.parameters import Block
from lrposterior.precision import double_precision
from lrposterior.recording import Recording


@dataclass(frozen=True)
class EmbeddingToLearn:
    """A layer that is still to be learned: what `learn_embedding` takes beside model and recording.

    Args:
        width: number of features.
        seed: of where it starts and of all noise.

    Raises:
        ValueError: if width or seed is out of its range.
    """

    width: int
    seed: int = field(kw_only=True)

    def __post_init__(self) -> None:
        RandomEmbedding(self.width, seed=self.seed)


@double_precision
def learn_embedding(
    model: LowRankModel,
    recording: Recording,
    width: int,
    *,
    method: Match | None = None,
    seed: int,
    progress: bool = True,
) -> LearnedEmbedding:
    """Learn a rectified layer of the inputs with which a network matches a recording.

        feature[t] = max(0, u[t] P / sqrt(number of inputs)),      P (input, width)

    P and the network descend together from `RandomEmbedding(width, seed=seed)` on the losses of `Match`. The network is
    then forgotten: what is returned is a fixed embedding like the others, for any fit of `embed_inputs(recording,
    embedding)`. What is not known of P is in no posterior of such a fit, and trials that taught P are not held out.

    A feature and its weights may trade a factor: every column of P is given the norm that a random one has, so that
    priors of the weights mean the same.

    Args:
        model: what is fitted on the features.
        recording: the trials, with their inputs before any embedding.
        width: number of features.
        method: how networks are matched, by default `Match(conditions="labels")` where trials have labels, else
            `Match()`; of several members the best one's layer is returned.
        seed: of where it starts, of the trials that stop it, and of all noise.
        progress: whether to show a bar.

    Raises:
        FitError: if no start has rates as recorded, or a network diverges.
        ValueError: if an argument is out of its range, or model, recording and method do not fit each other.
    """
    require_instance(model, "model", LowRankModel)
    require_instance(recording, "recording", Recording)
    default = Match(conditions=None if recording.trial_labels is None else "labels")
    method = require_instance(default if method is None else method, "method", Match)
    start = RandomEmbedding(width, seed=require_integer(seed, "seed"))
    require_suitable(model, recording, method)
    chosen, held = split_trials(recording.num_trials, method, seed)
    if loadings.evidence_decides(model):
        model = loadings.independent(model)
    with threadpoolctl.threadpool_limits(1, "blas"):
        base = ScaledProblem.settled(model, embed_inputs(recording.select(trials=chosen), start))
        projection = start.projection(recording.num_inputs)
        layer = Block(PROJECTION, projection.shape, 0.0, 1.0)
        space = dataclasses.replace(base.space, blocks=(*base.space.blocks, layer))
        matching = matching_problem(base.model, space, recording, method, chosen, held, seed)

        def start_of(network: int) -> np.ndarray:
            return np.concatenate([match_start(base, seed=(seed, network)), projection.ravel()])

        best = best_course(train(matching, start_of, method, progress))
    learned = space.coordinates(best.best.astype(np.float64), PROJECTION)
    return LearnedEmbedding(np.sqrt(recording.num_inputs) * learned / np.linalg.norm(learned, axis=0))


def learned_where_needed(
    embedding: InputEmbedding | EmbeddingToLearn,
    model: LowRankModel,
    recording: Recording,
    method: object,
    *,
    progress: bool,
) -> InputEmbedding:
    """The embedding, which is learned where it is still to be, from the trials that are fitted.

    Args:
        embedding: what was asked for.
        model: what is fitted on the features.
        recording: the trials that are fitted, with their inputs before any embedding.
        method: that of the fit, by whose options the layer is learned where it is `Match`.
        progress: whether to show a bar.

    Raises:
        FitError: as `learn_embedding`.
        ValueError: as `learn_embedding`.
    """
    if not isinstance(embedding, EmbeddingToLearn):
        return embedding
    matching = method if isinstance(method, Match) else None
    return learn_embedding(model, recording, embedding.width, method=matching, seed=embedding.seed, progress=progress)
