"""XLA does the arithmetic that it is asked to do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.mark.smoke
def test_batched_sums_of_products_are_those_of_numpy():
    """g x₀ − lin·x of 12,000 vectors. jaxlib 0.10.2 gives the difference of other vectors from number 6,553 on."""
    rng = np.random.default_rng(0)
    x, g, lin = (rng.normal(size=shape).astype(np.float32) for shape in ((12_000, 7), 5, 7))
    found = jax.jit(jax.vmap(lambda x: jnp.asarray(g) * x[0] - jnp.sum(jnp.asarray(lin) * x)))(jnp.asarray(x))
    np.testing.assert_allclose(found, x[:, :1] * g - (x @ lin)[:, None], atol=1e-4)
