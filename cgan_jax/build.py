"""A recipe turned into an Algorithm, to which the training step is bound: networks, optimizers, terms and numbers."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from cgan_jax import augment, augment_probability, averages, optimizers
from cgan_jax.annealing import Number, at, moving
from cgan_jax.errors import UsageError
from cgan_jax.lookup import module_named
from cgan_jax.losses import adversarial, classes, consistency, patches, pseudo, regularizers, terms
from cgan_jax.networks import anatomy

PLAYERS = ("generator", "discriminator")
_TERMS = (adversarial, patches, pseudo, regularizers, consistency, classes)
DISCRIMINATOR_TERMS = {name: make for module in _TERMS for name, make in module.DISCRIMINATOR.items()}
GENERATOR_TERMS = {name: make for module in _TERMS for name, make in module.GENERATOR.items()}


class Algorithm(NamedTuple):
    """All that is static in a training step. Batch sizes count samples over all devices."""

    generator: nn.Module
    discriminator: nn.Module
    g_optimizer: optax.GradientTransformation
    d_optimizer: optax.GradientTransformation
    d_updates: dict[str, tuple[terms.Weighted, ...]]
    """The discriminator's optimizer updates on one batch: name -> the terms to minimise, summed by weight.

    They run in the order of their names, in which a recipe keeps them.
    """
    g_terms: tuple[terms.Weighted, ...]
    batch_size: int
    g_batch_size: int
    d_steps_per_g_step: int
    flip: bool
    augment: augment.Augment
    """Changes the images that the discriminator sees in training."""
    augment_probability: augment_probability.Probability
    ema_decay: Callable[[jax.Array | float], jax.Array | float]
    """How far annealing is (0 to 1) -> the decay of the averaged generator in one generator step."""
    ema_start_step: int
    """Up to this step the averaged generator equals the generator."""
    further_decays: dict[str, float]
    """The decay of each further average in one generator step, by its name in averages.py."""
    total_steps: int
    anneal_steps: float
    """Generator steps after which annealing is done; 0 if nothing is annealed."""
    accumulate: int = 1
    """Parts of a device's batch whose gradients are added up, one after the other."""
    batch_norm_groups: int = 1
    """Equal parts of the global batch over which batch normalisation takes statistics."""
    g_frozen: frozenset[str] = frozenset()
    """The generator's arrays that training does not change, by name; likewise the discriminator's."""
    d_frozen: frozenset[str] = frozenset()


class ImageSpec(NamedTuple):
    """What a network must know about a dataset."""

    image_size: int
    channels: int
    num_classes: int


def images_per_step(config: Mapping[str, Any]) -> int:
    """The number of real images shown to the discriminator in one generator step."""
    return config["train"]["batch_size"] * config["train"]["d_steps_per_g_step"]


def steps_for(config: Mapping[str, Any], kimg: float) -> int:
    """The number of generator steps that show at least `kimg` thousand real images."""
    return math.ceil(round(kimg * 1000, 3) / images_per_step(config))


def kimg_after(config: Mapping[str, Any], steps: int) -> float:
    """Thousands of real images shown to the discriminator in so many generator steps."""
    return round(steps * images_per_step(config) / 1000, 6)


def network(config: Mapping[str, Any], player: str, spec: ImageSpec) -> nn.Module:
    """The recipe's network for `player`, "generator" or "discriminator", made from the section of that name.

    Raises UsageError for an unknown architecture, and for numbers that are unknown, missing or of the wrong type.
    """
    module = module_named("cgan_jax.networks.architectures", config["architecture"], "architecture")
    network_class = getattr(module, player.capitalize())
    if not config["dataset"]["conditional"]:
        spec = spec._replace(num_classes=0)
    not_in_recipe = {"parent", "name", *spec._fields}
    takes = {f.name: f.type for f in dataclasses.fields(network_class) if f.name not in not_in_recipe}
    optional = {f.name for f in dataclasses.fields(network_class) if f.default is not dataclasses.MISSING}
    given = config[player]
    if not set(takes) - optional <= set(given) <= set(takes):
        raise UsageError(
            f"{player} of {config['architecture']} takes {', '.join(sorted(takes))};"
            f" the recipe gives {', '.join(sorted(given)) or 'nothing'}"
        )
    for name, type_ in takes.items():
        if name in given and type(given[name]) is not type_:
            raise UsageError(f"{player}.{name} must be of type {type_.__name__}, given {given[name]!r}")
    return network_class(**spec._asdict(), **given)


def build(config: Mapping[str, Any], spec: ImageSpec) -> Algorithm:
    """The Algorithm of a checked recipe for images of `spec`. Raises UsageError for unknown names."""
    anneal, halflives = config["anneal"], averages.further(config)
    config = moving(config, anneal["to"])
    d_updates = {
        name: terms.from_recipe(section, DISCRIMINATOR_TERMS) for name, section in config["loss"]["d_updates"].items()
    }
    d_updates = {name: listed for name, listed in d_updates.items() if listed}
    g_terms = terms.from_recipe(config["loss"]["g_terms"], GENERATOR_TERMS)
    if not d_updates or not g_terms:
        raise UsageError("loss.d_updates and loss.g_terms must each list at least one loss of weight other than 0")
    train, ema = config["train"], config["ema"]
    total_steps = steps_for(config, train["total_kimg"])
    d_steps = total_steps * train["d_steps_per_g_step"]
    total_d_updates = sum(-(-d_steps // terms.period_of(listed)) for listed in d_updates.values())
    kimg_per_step = images_per_step(config) / 1000
    networks = {player: network(config, player, spec) for player in PLAYERS}
    for listed in itertools.chain(*d_updates.values()):
        if listed.term.is_per_sample and networks["discriminator"].couples_samples:
            raise UsageError(
                f"{listed.name} is of each sample's gradient, and the discriminator of {config['architecture']}"
                f" couples the samples of a batch; r1 and r2 are sums over the batch"
            )
    if train.get("batch_norm_groups", 1) > 1 and not anatomy.has_batch_norm(networks["generator"]):
        raise UsageError(
            f"train.batch_norm_groups={train['batch_norm_groups']}: the generator has no batch normalisation"
        )
    frozen = {player: frozenset() for player in PLAYERS}
    for player, count in frozen_layers(train.get("freeze", "")).items():
        frozen[player] = anatomy.nearest_to_image(networks[player], player, count)
    probability = augment_probability.from_recipe(config["augment"], train["batch_size"])
    if probability.init_memory and not any(_judges_real(listed) for listed in d_updates.values()):
        raise UsageError("augment.target needs a loss with a decision boundary on real images, such as bce_real")
    g_optimizer = optimizers.make(config["g_optimizer"], total_steps)
    d_optimizer = optimizers.make(config["d_optimizer"], total_d_updates)
    return Algorithm(
        generator=networks["generator"],
        discriminator=networks["discriminator"],
        g_optimizer=optimizers.freezing(g_optimizer, frozen["generator"]),
        d_optimizer=optimizers.freezing(d_optimizer, frozen["discriminator"]),
        d_updates=d_updates,
        g_terms=g_terms,
        batch_size=train["batch_size"],
        g_batch_size=train["g_batch_size"],
        d_steps_per_g_step=train["d_steps_per_g_step"],
        flip=config["dataset"]["flip"],
        augment=augment.from_recipe(config["augment"]),
        augment_probability=probability,
        ema_decay=functools.partial(_decay, ema["halflife_kimg"], kimg_per_step),
        ema_start_step=steps_for(config, ema["start_kimg"]),
        further_decays={name: 0.5 ** (kimg_per_step / halflife) for name, halflife in halflives.items()},
        total_steps=total_steps,
        anneal_steps=anneal["kimg"] / kimg_per_step if anneal["to"] else 0.0,
        accumulate=train.get("accumulate", 1),  # runs of earlier versions have none
        batch_norm_groups=train.get("batch_norm_groups", 1),
        g_frozen=frozen["generator"],
        d_frozen=frozen["discriminator"],
    )


def _judges_real(listed: tuple[terms.Weighted, ...]) -> bool:
    """Whether an update looks at real images and has a decision boundary."""
    return terms.boundary_of(listed) is not None and any("real" in each.term.reads for each in listed)


def frozen_layers(freeze: str) -> dict[str, int]:
    """How many layers of each network "discriminator:3,generator:2" names. Raises UsageError for another form."""
    counts: dict[str, int] = {}
    for part in freeze.split(",") if freeze else ():
        player, _, count = part.strip().partition(":")
        if player not in PLAYERS or player in counts or not (count.isascii() and count.isdigit()):
            raise UsageError(
                f"train.freeze must be like discriminator:3 or discriminator:3,generator:2, given {freeze!r}"
            )
        counts[player] = int(count[:9])
    return counts


def _decay(halflife_kimg: Number, kimg: float, annealed: jax.Array | float) -> jax.Array | float:
    """The decay of an average while `kimg` are shown: 1/2 in a half-life; 0 if the half-life is 0."""
    halflife = at(halflife_kimg, annealed)
    if isinstance(halflife, float):
        return 0.5 ** (kimg / halflife) if halflife else 0.0
    return jnp.exp2(-kimg / jnp.maximum(halflife, 1e-3 * kimg))
