"""The residual networks written a second time, with PyTorch's own functions in float64, for tests to compare with.

Nothing is rearranged here: pixels are repeated before a convolution and averaged after it, as the papers draw it. The
functions take our variables as `tensors` makes them; images and feature maps are [N, C, H, W].
"""

import jax
import numpy as np
import torch
import torch.nn.functional as F


def tensors(tree):
    """Every array of a tree as a float64 leaf of PyTorch's autograd."""
    return jax.tree.map(lambda leaf: torch.tensor(np.asarray(leaf), dtype=torch.float64, requires_grad=True), tree)


def gradients(tree):
    """What `backward` left at each leaf of such a tree."""
    return jax.tree.map(lambda leaf: leaf.grad.numpy(), tree, is_leaf=torch.is_tensor)


def weight(params, spectral, name="kernel"):
    """A weight over |M u|, with M its [-1, features] form and u the direction that is kept for it, if any."""
    kernel = params[name]
    if "SpectralNorm_0" not in spectral:
        return kernel
    matrix, u = kernel.reshape(-1, kernel.shape[-1]), F.normalize(spectral["SpectralNorm_0"]["u"].detach(), dim=0)
    v = F.normalize(matrix.detach() @ u, dim=0)
    return kernel / (v @ matrix @ u)


def conv(params, spectral, x):
    kernel = weight(params, spectral).permute(3, 2, 0, 1).contiguous()
    return F.conv2d(x, kernel, params.get("bias"), padding=kernel.shape[-1] // 2)


def dense(params, spectral, x):
    y = x @ weight(params, spectral)
    return y + params["bias"] if "bias" in params else y


def normalized(stats, x, train):
    """By the batch, or the running statistics, with StudioGAN's epsilon."""
    kept = stats["mean"].detach().clone(), stats["variance"].detach().clone()
    return F.batch_norm(x, *kept, training=train, eps=1e-4)


def conditional_norm(params, spectral, stats, x, condition, train):
    """Scale and bias are linear in a vector, or a class's own."""
    if "embedding" in params["scale"]:
        scale, bias = (params[name]["embedding"][condition] for name in ("scale", "bias"))
    else:
        scale, bias = (dense(params[name], spectral.get(name, {}), condition) for name in ("scale", "bias"))
    return normalized(stats, x, train) * (1 + scale)[:, :, None, None] + bias[:, :, None, None]


def attention(params, spectral, x):
    def projected(number, y):
        return conv(params[f"Conv_{number}"], spectral.get(f"Conv_{number}", {}), y)

    queries = projected(0, x).flatten(2)
    keys = F.max_pool2d(projected(1, x), 2).flatten(2)
    values = F.max_pool2d(projected(2, x), 2).flatten(2)
    weights = F.softmax(queries.transpose(1, 2) @ keys, dim=-1)
    seen = (values @ weights.transpose(1, 2)).reshape(x.shape[0], -1, *x.shape[2:])
    return x + params["gate"] * projected(3, seen)


def generator_block(params, spectral, stats, x, condition, train):
    norm = next(name for name in params if "Norm" in name).rpartition("_")[0]

    def activated(number, y):
        name = f"{norm}_{number}"
        return F.relu(conditional_norm(params[name], spectral.get(name, {}), stats[name], y, condition, train))

    y = F.interpolate(activated(0, x), scale_factor=2, mode="nearest")
    y = conv(params["UpsampledConv_0"], spectral.get("UpsampledConv_0", {}), y)
    y = conv(params["Conv_0"], spectral.get("Conv_0", {}), activated(1, y))
    shortcut = F.interpolate(x, scale_factor=2, mode="nearest")
    return y + conv(params["Conv_1"], spectral.get("Conv_1", {}), shortcut)


def generator(variables, latents, labels, train, chunked):
    """`chunked`: BigGAN, whose blocks are conditioned on a part of the latents and the class's embedding."""
    params, stats, spectral = (variables.get(name, {}) for name in ("params", "batch_stats", "spectral"))
    blocks = sorted(name for name in params if name.startswith("GeneratorBlock"))
    conditions, first = [labels] * len(blocks), latents
    if chunked:
        first, *parts = latents.chunk(len(blocks) + 1, dim=1)
        conditions = [torch.cat([part, params["Embed_0"]["embedding"][labels]], dim=1) for part in parts]
    x = dense(params["Dense_0"], spectral.get("Dense_0", {}), first)
    x = x.reshape(len(x), 4, 4, -1).permute(0, 3, 1, 2)
    for place, (name, condition) in enumerate(zip(blocks, conditions, strict=True)):
        x = generator_block(params[name], spectral.get(name, {}), stats[name], x, condition, train)
        if "SelfAttention_0" in params and place == len(blocks) - 2:
            x = attention(params["SelfAttention_0"], spectral["SelfAttention_0"], x)
    last = params["BatchNorm_0"]
    x = normalized(stats["BatchNorm_0"], x, train) * last["scale"][:, None, None] + last["bias"][:, None, None]
    return torch.tanh(conv(params["Conv_0"], spectral.get("Conv_0", {}), F.relu(x)))


def discriminator_block(params, spectral, x, first, halves):
    y = conv(params["Conv_0"], spectral["Conv_0"], x if first else F.relu(x))
    second = "PooledConv_0" if halves else "Conv_1"
    y, shortcut = conv(params[second], spectral[second], F.relu(y)), x
    left = [name for name in params if name not in ("Conv_0", second)]
    if left:
        shortcut = conv(params[left[0]], spectral[left[0]], x)
    return F.avg_pool2d(y, 2) + F.avg_pool2d(shortcut, 2) if halves else y + shortcut


def discriminator(variables, images, labels):
    params, spectral = variables["params"], variables["spectral"]
    blocks = sorted(name for name in params if name.startswith("DiscriminatorBlock"))
    x = images
    for place, name in enumerate(blocks):
        halves = "PooledConv_0" in params[name]
        x = discriminator_block(params[name], spectral[name], x, place == 0, halves)
        if place == 0 and "SelfAttention_0" in params:
            x = attention(params["SelfAttention_0"], spectral["SelfAttention_0"], x)
    features = F.relu(x).sum(dim=(2, 3))
    (head,) = (name for name in ("Projection_0", "Unconditional_0") if name in params)
    params, spectral = params[head], spectral[head]
    logits = dense(params["Dense_0"], spectral["Dense_0"], features)[:, 0]
    if "Embed_0" in params:
        logits = logits + (weight(params["Embed_0"], spectral["Embed_0"], "embedding")[labels] * features).sum(dim=1)
    return logits
