"""Models of low rank alone, with independent loadings: what most tests are about."""

from typing import Any

import lrposterior as lrp


def plain_model(*arguments: Any, **options: Any) -> lrp.LowRankModel:
    """`LowRankModel` without a background and with independent priors, unless they are given."""
    return lrp.LowRankModel(*arguments, **({"background": None, "priors": lrp.Priors()} | options))
