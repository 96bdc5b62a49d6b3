"""How the discriminator looks at several batches: in one call, or in one call each."""

import jax
import jax.numpy as jnp
import numpy as np

from cgan_jax import train_state
from cgan_jax.build import ImageSpec, build
from cgan_jax.data.batches import Batch
from cgan_jax.losses.look import Look
from cgan_jax.networks.heads import Output

SPEC = ImageSpec(image_size=8, channels=1, num_classes=10)


def look_of(discriminator) -> Look:
    """A look without augmentation."""
    return Look(discriminator, lambda key, images, probability: images, jax.random.key(1), jax.random.key(2), 0.0)


def test_one_call_on_all_batches_equals_one_call_each(recipe):
    recipe["discriminator"]["dropout"] = 0.0
    algorithm = build(recipe, SPEC)
    state = train_state.create(algorithm, SPEC, jax.random.key(0))
    rng = np.random.default_rng(1)
    batches = {
        name: Batch(jnp.asarray(rng.normal(size=(6, 8, 8, 1)), jnp.float32), jnp.asarray(rng.integers(0, 10, 6)))
        for name in ("real", "fake", "twin")
    }
    outputs, _ = look_of(algorithm.discriminator).outputs(state.d_params, {}, batches, update_stats=True)
    for name, batch in batches.items():
        alone = algorithm.discriminator.apply({"params": state.d_params}, batch.images, batch.labels, train=False)
        np.testing.assert_allclose(outputs[name].logits, alone.logits, rtol=1e-5, atol=1e-6)


def test_a_network_that_couples_samples_is_called_on_one_batch_at_a_time():
    calls = []

    class Discriminator:
        couples_samples = True

        def apply(self, variables, images, labels, train, rngs, mutable):
            calls.append(images.shape[0])
            count = variables["batch_stats"] + 1
            return Output(images.mean(axis=(1, 2, 3)), {}), {"batch_stats": count}

    batch = Batch(jnp.ones((3, 2, 2, 1)), jnp.zeros(3, jnp.int32))
    look, batches = look_of(Discriminator()), {"real": batch, "fake": batch}
    _, stats = look.outputs({}, {"batch_stats": 0}, batches, update_stats=True)
    assert calls == [3, 3] and stats == {"batch_stats": 2}
