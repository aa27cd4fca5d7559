"""Normal distributions of the kinds that `SVI` fits."""

import jax.numpy as jnp
import numpy as np
from numpyro import distributions


def random_guide(guide: str, size: int, random: np.random.Generator, num_factors: int) -> distributions.Distribution:
    """One of `SVI.guide`, over coordinates (size,)."""
    location, spread = jnp.asarray(random.standard_normal(size)), jnp.asarray(random.uniform(0.5, 2.0, size))
    factor = jnp.asarray(random.standard_normal((size, num_factors)))
    return {
        "full": lambda: distributions.MultivariateNormal(
            location, scale_tril=jnp.diag(spread) + jnp.tril(factor @ factor.T, -1)
        ),
        "low_rank": lambda: distributions.LowRankMultivariateNormal(location, factor, spread),
        "mean_field": lambda: distributions.Normal(location, spread),
    }[guide]()
