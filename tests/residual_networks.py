"""What the tests of SNGAN and BigGAN share: variables of no special values, sizes, and PyTorch's say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest


def _shapes(module, *inputs):
    return jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, False))


def sizes(module, *inputs) -> dict:
    """The shape of every variable."""
    return jax.tree.map(jnp.shape, _shapes(module, *inputs))


def count(module, *inputs) -> int:
    """The number of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(_shapes(module, *inputs)["params"]))


def random_variables(module, *inputs):
    """Variables of the shapes that the module makes, none of them 0 and every variance positive."""
    shapes, rng = _shapes(module, *inputs), np.random.default_rng(2)
    variables = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32) / 3, shapes)
    for name in ("batch_stats", "spectral"):
        if name in variables:
            variables[name] = jax.tree.map(lambda leaf: np.abs(leaf) + 0.5, variables[name])
    return variables


def assert_like_pytorch(module, given, labels, train, **options) -> None:
    """Outputs, and the gradients of a random combination of them, to 1e-4 of each tensor's largest entry."""
    pytest.importorskip("torch", reason="the extra [reference] brings PyTorch, to compare with")
    from tests import torch_networks

    kind = type(module).__name__.lower()
    variables = random_variables(module, given, labels)
    theirs, torch_labels = torch_networks.tensors(variables), torch_networks.torch.tensor(labels)
    if kind == "generator":
        expected = torch_networks.generator(theirs, torch_networks.tensors(given), torch_labels, train, **options)
        expected = expected.permute(0, 2, 3, 1)
    else:
        images = torch_networks.tensors(given.transpose(0, 3, 1, 2))
        expected = torch_networks.discriminator(theirs, images, torch_labels)
    weights = np.random.default_rng(3).normal(size=expected.shape).astype(np.float32)
    (expected * torch_networks.torch.tensor(weights)).sum().backward()

    def loss(params):
        result = module.apply({**variables, "params": params}, given, labels, train)
        result = result if kind == "generator" else result.logits
        return jnp.sum(weights * result), result

    gradient, actual = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    expected = expected.detach().numpy()
    assert 0.01 < np.abs(expected).mean() < (0.9 if kind == "generator" else np.inf), "a tanh that is not saturated"
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
    wanted = torch_networks.gradients(theirs["params"])
    # A bias before batch normalisation changes nothing: its gradient is rounding alone, of sums as large as others.
    rounding = 1e-6 * max(np.abs(its).max() for its in jax.tree.leaves(wanted))
    for (path, ours), its in zip(jax.tree_util.tree_leaves_with_path(gradient), jax.tree.leaves(wanted), strict=True):
        difference = np.abs(ours - its).max()
        assert difference <= 1e-4 * np.abs(its).max() + rounding, f"{jax.tree_util.keystr(path)}: {difference}"
