"""Self-attention against PyTorch's functions, what its gate must do, and blocks whose activations are recomputed."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cgan_jax.networks.blocks import SelfAttention

NETWORKS = {
    "r3gan": (8, {"latent_dim": 4, "width": 16, "blocks": 1, "embedding_dim": 4}, {"width": 16, "blocks": 1}),
    "stylegan2": (
        8,
        {"latent_dim": 4, "width": 4, "style_dim": 4, "mapping_layers": 1, "style_mixing": 0.0},
        {"width": 4, "group": 2, "head": "mapped_projection"},
    ),
    "sngan": (32, {"latent_dim": 4, "width": 2}, {"width": 2, "head": "projection"}),
    "biggan": (32, {"latent_dim": 8, "width": 2, "embedding_dim": 4}, {"width": 2, "head": "projection"}),
}
X = np.random.default_rng(0).normal(size=(2, 4, 6, 16)).astype(np.float32)
LAYER = SelfAttention(1e-6)


@pytest.fixture(scope="module")
def made():
    return jax.jit(LAYER.init)(jax.random.key(0), X)


def with_gate(variables, gate):
    return {**variables, "params": {**variables["params"], "gate": jnp.float32(gate)}}


def test_values_and_gradients_are_those_of_pytorch(made):
    pytest.importorskip("torch", reason="the extra [reference] brings PyTorch, to compare with")
    from tests import torch_networks

    weights = np.random.default_rng(1).normal(size=X.shape).astype(np.float32)
    given = with_gate(made, 0.7)
    theirs = torch_networks.tensors({"variables": given, "x": X.transpose(0, 3, 1, 2)})
    expected = torch_networks.attention(theirs["variables"]["params"], theirs["variables"]["spectral"], theirs["x"])
    np.testing.assert_allclose(
        jax.jit(LAYER.apply)(given, X), expected.detach().numpy().transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-5
    )
    (expected * torch_networks.tensors(weights.transpose(0, 3, 1, 2))).sum().backward()

    def loss(params, x):
        return jnp.sum(weights * LAYER.apply({**given, "params": params}, x))

    in_params, in_x = jax.jit(jax.grad(loss, argnums=(0, 1)))(given["params"], X)
    wanted = torch_networks.gradients(theirs["variables"]["params"])
    for name, kernel in in_params.items():
        for ours, its in zip(jax.tree.leaves(kernel), jax.tree.leaves(wanted[name]), strict=True):
            np.testing.assert_allclose(ours, its, rtol=1e-3, atol=1e-5 * np.abs(its).max(), err_msg=name)
    np.testing.assert_allclose(in_x, theirs["x"].grad.numpy().transpose(0, 2, 3, 1), rtol=1e-3, atol=1e-4)


def test_it_starts_as_the_identity(made):
    assert made["params"]["gate"] == 0
    np.testing.assert_array_equal(LAYER.apply(made, X), X)


def test_every_place_sees_all_blocks_of_its_image_and_none_of_another(made):
    given = with_gate(made, 1.0)
    slope = np.asarray(jax.jit(jax.grad(lambda x: jnp.sum(LAYER.apply(given, x)[0, 0, 0])))(X))
    assert np.all(np.abs(slope[0]).reshape(2, 2, 3, 2, 16).sum(axis=(1, 3, 4)) > 0)
    np.testing.assert_array_equal(slope[1], np.zeros_like(slope[1]))


def test_shapes_and_types_are_kept(made):
    shapes = {name: leaf["kernel"].shape for name, leaf in made["params"].items() if name != "gate"}
    assert shapes == {f"Conv_{i}": (1, 1, *s) for i, s in enumerate([(16, 2), (16, 2), (16, 8), (8, 16)])}
    assert LAYER.apply(made, jnp.asarray(X, jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("name", NETWORKS)
def test_recomputed_blocks_keep_their_parameters_and_are_in_the_backward_pass(name):
    size, *sections = NETWORKS[name]
    module = importlib.import_module(f"cgan_jax.networks.architectures.{name}")
    labels, images, latents = np.zeros(2, np.int32), np.zeros((2, size, size, 3), np.float32), sections[0]["latent_dim"]
    for kind, section, given in zip(
        ("Generator", "Discriminator"), sections, ((2, latents), images.shape), strict=True
    ):
        found = []
        for remat in (False, True):
            fields = {"image_size": size, "channels": 3, "num_classes": 10, "dtype": "float32", "remat": remat}
            network, x = getattr(module, kind)(**section, **fields), np.zeros(given, np.float32)
            variables = jax.eval_shape(lambda network=network, x=x: network.init(jax.random.key(0), x, labels, False))

            def total(params, others, network=network, x=x):
                out = network.apply({**others, "params": params}, x, labels, True, mutable=list(others))[0]
                return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(out))

            others = {collection: leaves for collection, leaves in variables.items() if collection != "params"}
            program = str(jax.make_jaxpr(jax.grad(total))(variables["params"], others))
            found.append((jax.tree.map(lambda leaf: leaf.shape, variables), "remat" in program))
        (shapes, before), (same, after) = found
        assert shapes == same and not before and after


def test_recomputed_activations_give_the_same_gradient():
    from cgan_jax.networks.architectures.r3gan import Discriminator

    def gradient(remat):
        network = Discriminator(8, 3, 0, 16, 1, "float32", remat=remat)
        images = jnp.asarray(np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype(np.float32))
        variables = network.init(jax.random.key(0), images, None, False)

        def penalty(params):  # as R1 has it
            slope = jax.grad(lambda x: jnp.sum(network.apply({"params": params}, x, None, True).logits))(images)
            return jnp.sum(jnp.square(slope))

        return jax.jit(jax.grad(penalty))(variables["params"])

    for plain, recomputed in zip(*(jax.tree.leaves(gradient(remat)) for remat in (False, True)), strict=True):
        np.testing.assert_allclose(recomputed, plain, rtol=1e-5, atol=1e-6 * np.abs(plain).max())
