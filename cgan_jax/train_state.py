"""TrainState: all that training changes, as a pytree of arrays. To save a run is to save these arrays."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from cgan_jax import parallel
from cgan_jax.build import Algorithm, ImageSpec
from cgan_jax.losses.terms import Weighted

Tree = Any


@flax.struct.dataclass
class TrainState:
    """The run after `step` generator updates. "stats" are a network's other collections, such as running means."""

    step: jax.Array
    key: jax.Array
    g_params: Tree
    d_params: Tree
    g_stats: Tree
    d_stats: Tree
    g_opt_state: Tree
    d_opt_state: Tree
    ema_params: Tree
    ema_stats: Tree
    further: dict[str, dict[str, Tree]]
    """The variables of further averaged generators, by the names in averages.py; {} if the run keeps one average."""
    memory: Tree
    """What terms keep between steps: {"d": {update: {term: ...}}, "g": {term: ...}}. What sets the probability of
    augmentation may add an entry."""
    time_share: jax.Array
    """The share of `train.max_minutes` that the run has used; 0 if minutes are not limited."""

    @property
    def average(self) -> dict[str, Tree]:
        """The averaged generator's variables, as `apply` takes them."""
        return {"params": self.ema_params, **self.ema_stats}


def parted(variables: Mapping[str, Tree]) -> tuple[Tree, dict[str, Tree]]:
    """A network's variables -> (its parameters, its other collections)."""
    return variables["params"], {name: tree for name, tree in variables.items() if name != "params"}


def init_generator(generator: nn.Module, key: jax.Array) -> dict[str, Tree]:
    """A generator's initial variables: "params" and the other collections."""
    latents, labels = jnp.zeros((1, generator.latent_dim)), jnp.zeros((1,), jnp.int32)
    return generator.init(key, latents, labels, train=False)


def create(algorithm: Algorithm, spec: ImageSpec, key: jax.Array) -> TrainState:
    """The state before the first step. Pure, so `jax.eval_shape` gives its shapes without computing anything."""

    def copied(tree: Tree) -> Tree:  # a donated state must not hold one buffer twice
        return jax.tree.map(jnp.copy, tree)

    run_key, g_key, d_key = jax.random.split(key, 3)
    images = jnp.zeros((1, spec.image_size, spec.image_size, spec.channels))
    labels = jnp.zeros((1,), jnp.int32)
    g_params, g_stats = parted(init_generator(algorithm.generator, g_key))
    d_params, d_stats = parted(algorithm.discriminator.init(d_key, images, labels, train=False))
    memory = {
        "d": {name: _init_memory(terms) for name, terms in algorithm.d_updates.items()},
        "g": _init_memory(algorithm.g_terms),
        **algorithm.augment_probability.init_memory,
    }
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        key=run_key,
        g_params=g_params,
        d_params=d_params,
        g_stats=g_stats,
        d_stats=d_stats,
        g_opt_state=algorithm.g_optimizer.init(g_params),
        d_opt_state=algorithm.d_optimizer.init(d_params),
        ema_params=copied(g_params),
        ema_stats=copied(g_stats),
        further={name: copied({"params": g_params, **g_stats}) for name in algorithm.further_decays},
        memory=memory,
        time_share=jnp.zeros(()),
    )


def _init_memory(terms: tuple[Weighted, ...]) -> dict[str, Tree]:
    return {listed.name: listed.term.init_memory for listed in terms}


@jax.jit
def is_finite(tree: Tree) -> jax.Array:
    """Whether every floating-point number of a tree is finite, a bool scalar."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def create_quickly(algorithm: Algorithm, spec: ImageSpec, seed: int) -> TrainState:
    """The state before the first step, compiled without optimisation because it runs once: in 3 s instead of 14."""
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    is_cpu = jax.default_backend() == "cpu"
    return jax.jit(
        lambda: create(algorithm, spec, jax.random.key(seed, impl=parallel.PRNG)),
        compiler_options=options if is_cpu else None,
    )()


def describe(algorithm: Algorithm, spec: ImageSpec, shapes: TrainState) -> str:
    """The layers, shapes and parameter counts of both networks, as text. `shapes` is a TrainState or its shapes."""
    from clu import parameter_overview

    labels = np.zeros((1,), np.int32)
    latents = np.zeros((1, algorithm.generator.latent_dim), np.float32)
    images = np.zeros((1, spec.image_size, spec.image_size, spec.channels), np.float32)
    key, wide = jax.random.key(0), {"width": 140, "force_terminal": False}
    return "\n".join(
        [
            algorithm.generator.tabulate(key, latents, labels, False, console_kwargs=wide),
            algorithm.discriminator.tabulate(key, images, labels, False, console_kwargs=wide),
            "Generator",
            parameter_overview.get_parameter_overview(shapes.g_params, include_stats=False),
            "Discriminator",
            parameter_overview.get_parameter_overview(shapes.d_params, include_stats=False),
            "",
        ]
    )
