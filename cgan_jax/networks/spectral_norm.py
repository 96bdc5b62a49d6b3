"""Spectral normalisation: weights divided by their largest singular value, so that a dense layer is 1-Lipschitz."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class SpectralNorm(nn.Module):
    """A kernel [..., F] divided by an estimate of the largest singular value of its [-1, F] form; of the same shape.

    One power iteration (Miyato et al. 2018, algorithm 1), with M the matrix and u a stored unit vector (collection
    "spectral"):

        v = M u / |M u|,  u = M' v / |M' v|,  sigma = v' M u = |M' v|

    Gradients pass through M alone. sigma and the vectors are float32 for every dtype of the layer. u changes exactly
    when its collection is mutable. Otherwise sigma is |M u|, a function of the kernel and u. All replicas have one
    kernel, and so one u.
    """

    epsilon: float
    """The smallest length by which a vector is divided, and the smallest sigma."""

    @nn.compact
    def __call__(self, kernel: jax.Array) -> jax.Array:
        matrix = kernel.reshape(-1, kernel.shape[-1])
        frozen = jax.lax.stop_gradient(matrix)
        stored = self.variable("spectral", "u", lambda: self._first(frozen))
        if self.is_mutable_collection("spectral") and not self.is_initializing():
            v = self._unit(_product(frozen, stored.value))
            sigma, stored.value = self._length(_product(matrix.T, v))
        else:  # An averaged network has an average of unit vectors, which is shorter than 1.
            sigma, _ = self._length(_product(matrix, self._unit(stored.value)))
        return kernel / jnp.maximum(sigma, self.epsilon)

    def _length(self, vector: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The length of a vector, whose gradient passes through the vector alone, and its direction."""
        direction = self._unit(jax.lax.stop_gradient(vector))
        return jnp.sum(direction * vector), direction

    def _first(self, matrix: jax.Array) -> jax.Array:
        """A random vector after one power iteration, so that it is not in the null space of a wide matrix.

        A wide matrix maps most vectors almost to 0, so that its norm would seem far smaller.
        """
        u = jax.random.normal(self.make_rng("params"), matrix.shape[1:])
        return self._unit(_product(matrix.T, _product(matrix, u)))

    def _unit(self, vector: jax.Array) -> jax.Array:
        return vector / jnp.maximum(jnp.sqrt(jnp.sum(jnp.square(vector))), self.epsilon)


def _product(matrix: jax.Array, vector: jax.Array) -> jax.Array:
    """A product in full float32; accelerators use less by default."""
    return jnp.matmul(matrix, vector, precision=jax.lax.Precision.HIGHEST)
