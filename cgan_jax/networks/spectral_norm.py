"""Weights divided by their largest singular value, so that a layer changes no difference by more than a factor of 1."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class SpectralNorm(nn.Module):
    """A kernel [..., F] over an estimate of the largest singular value of its [-1, F] form, of the same shape.

    Miyato et al. (2018), algorithm 1: with M the matrix, u a unit vector that is kept (collection "spectral"),

        v = M u / |M u|,  u = M' v / |M' v|,  sigma = v' M u,

    where gradients pass through M alone. The estimate and its vectors are float32, whatever the layer computes in. u
    moves exactly when its collection is mutable; else it stays and sigma is |M u|, so that what is only asked for its
    output is a function of the kernel and of u. All replicas have one kernel, and so one u.
    """

    epsilon: float
    """The least length that a vector is divided by, and the least sigma."""

    @nn.compact
    def __call__(self, kernel: jax.Array) -> jax.Array:
        matrix = kernel.reshape(-1, kernel.shape[-1])
        frozen = jax.lax.stop_gradient(matrix)
        stored = self.variable("spectral", "u", lambda: self._first(frozen))
        # An average of unit vectors, which is what an averaged network has, is shorter than 1.
        u = self._unit(stored.value)
        v = self._unit(_product(frozen, u))
        if self.is_mutable_collection("spectral") and not self.is_initializing():
            u = self._unit(_product(frozen.T, v))
            stored.value = u
        sigma = jnp.sum(v * _product(matrix, u))
        return kernel / jnp.maximum(sigma, self.epsilon)

    def _first(self, matrix: jax.Array) -> jax.Array:
        """A random direction after one turn, which puts it where the matrix does not vanish: one wider than high, which
        sends most directions to almost 0, would seem to have a far smaller norm."""
        u = jax.random.normal(self.make_rng("params"), matrix.shape[1:])
        return self._unit(_product(matrix.T, _product(matrix, u)))

    def _unit(self, vector: jax.Array) -> jax.Array:
        return vector / jnp.maximum(jnp.sqrt(jnp.sum(jnp.square(vector))), self.epsilon)


def _product(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    """In full float32, which accelerators leave where they may."""
    return jnp.matmul(matrix, vector, precision=jax.lax.Precision.HIGHEST)
