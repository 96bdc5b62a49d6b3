"""cgan_jax: class-conditional image GANs in JAX. Imports nothing, so that `cgan --help` answers at once."""

__version__ = "0.1.0"
