"""Times the blocks of the modern networks, forwards and backwards, here and in PyTorch, in alternation.

    python -m benchmarks.blocks [--rounds=5] [--batch=64] [--only=REGEX] [--dtype=float32] [--compiled]

A turn trains a block: it updates statistics and spectral vectors, and computes the gradients of the input and of all
weights. The PyTorch blocks are idiomatic: channels last, torch's spectral norm, pixels repeated before a convolution
and averaged after it. They use autocast for bfloat16, and torch.compile with --compiled. Sizes are those of the
CIFAR-10 recipes. tests/networks compares our results with PyTorch's.
"""

import argparse
import os
import re
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # two frameworks share the GPU

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from flax import linen
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from cgan_jax import compilation
from cgan_jax.heap import keep_freed_memory
from cgan_jax.networks import blocks
from cgan_jax.networks.architectures import r3gan
from cgan_jax.networks.blocks import SelfAttention
from cgan_jax.networks.layers import ClassBatchNorm, ConditionalBatchNorm
from cgan_jax.run.throughput import layer_flop

EPSILON = 1e-6
CLASSES, PART = 10, 148  # BigGAN's blocks see 20 latents and 128 features of the class
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
_PAUSE = 0.3  # seconds, so that the threads of the last turn go to sleep


class Norm(nn.Module):
    """Batch normalisation with a scale and bias per class, or linear in a vector."""

    def __init__(self, channels, by_class):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, eps=blocks.EPSILON, affine=False)
        make = (
            (lambda: nn.Embedding(CLASSES, channels))
            if by_class
            else (lambda: spectral_norm(nn.Linear(PART, channels, bias=False)))
        )
        self.scale, self.bias = make(), make()

    def forward(self, x, condition):
        return self.norm(x) * (1 + self.scale(condition))[:, :, None, None] + self.bias(condition)[:, :, None, None]


class GeneratorBlock(nn.Module):
    def __init__(self, channels, by_class):
        super().__init__()
        wrap = (lambda layer: layer) if by_class else spectral_norm
        self.norms = nn.ModuleList(Norm(channels, by_class) for _ in range(2))
        self.convs = nn.ModuleList(wrap(nn.Conv2d(channels, channels, size, padding=size // 2)) for size in (3, 3, 1))

    def forward(self, x, condition):
        y = F.interpolate(F.relu(self.norms[0](x, condition)), scale_factor=2)
        y = self.convs[1](F.relu(self.norms[1](self.convs[0](y), condition)))
        return y + self.convs[2](F.interpolate(x, scale_factor=2))


class DiscriminatorBlock(nn.Module):
    def __init__(self, channels):
        super().__init__()
        convs = (nn.Conv2d(channels, channels, size, padding=size // 2) for size in (3, 3, 1))
        self.convs = nn.ModuleList(map(spectral_norm, convs))

    def forward(self, x):
        y = self.convs[1](F.relu(self.convs[0](F.relu(x))))
        return F.avg_pool2d(y + self.convs[2](x), 2)


class Attention(nn.Module):
    def __init__(self, channels):
        super().__init__()
        sizes = [(channels, channels // 8)] * 2 + [(channels, channels // 2), (channels // 2, channels)]
        self.convs = nn.ModuleList(spectral_norm(nn.Conv2d(i, o, 1, bias=False)) for i, o in sizes)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        queries = self.convs[0](x).flatten(2)
        keys, values = (F.max_pool2d(conv(x), 2).flatten(2) for conv in self.convs[1:3])
        weights = F.softmax(queries.transpose(1, 2) @ keys, dim=-1)
        return x + self.gate * self.convs[3]((values @ weights.transpose(1, 2)).reshape(len(x), -1, *x.shape[2:]))


class R3GANBlock(nn.Module):
    def __init__(self, channels):
        super().__init__()
        inside, groups = 2 * channels, 2 * channels // 16
        self.widen, self.narrow = nn.Conv2d(channels, inside, 1), nn.Conv2d(inside, channels, 1, bias=False)
        self.grouped = nn.Conv2d(inside, inside, 3, padding=1, groups=groups)

    def forward(self, x):
        y = F.leaky_relu(self.widen(x), 0.2)
        return x + self.narrow(F.leaky_relu(self.grouped(y), 0.2))


def biggan_norm():
    return ConditionalBatchNorm(spectral_epsilon=EPSILON, epsilon=blocks.EPSILON)


def sngan_norm():
    return ClassBatchNorm(num_classes=CLASSES, epsilon=blocks.EPSILON)


class Case(NamedTuple):
    """One block, ours and PyTorch's, on feature maps of `side` x `side` x `channels`."""

    ours: linen.Module
    theirs: Callable[[], nn.Module]
    side: int
    channels: int
    condition: str = ""
    """The block's second input, "class", "vector" or "". Ours then also takes whether it trains."""


CASES = {
    "SNGAN generator, 16 to 32": Case(
        blocks.GeneratorBlock(256, sngan_norm), lambda: GeneratorBlock(256, True), 16, 256, "class"
    ),
    "BigGAN generator, 16 to 32": Case(
        blocks.GeneratorBlock(384, biggan_norm, EPSILON), lambda: GeneratorBlock(384, False), 16, 384, "vector"
    ),
    "BigGAN discriminator, 32 to 16": Case(
        blocks.DiscriminatorBlock(192, True, EPSILON), lambda: DiscriminatorBlock(192), 32, 192
    ),
    "attention at 16": Case(SelfAttention(EPSILON), lambda: Attention(384), 16, 384),
    "R3GAN at 16": Case(r3gan.Block(12), lambda: R3GANBlock(768), 16, 768),
}


def inputs(case, batch):
    """The feature map, and the condition if the block has one."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, case.side, case.side, case.channels)).astype(np.float32)
    vectors, classes = rng.normal(size=(batch, PART)).astype(np.float32), rng.integers(CLASSES, size=batch)
    return {"": [x], "class": [x, classes], "vector": [x, vectors]}[case.condition]


def ours(case, given, dtype):
    """Returns (a turn of ours, its FLOP, the shape of its output)."""
    x, *condition = map(jnp.asarray, given)
    x, rest = x.astype(dtype), [*condition, True] if condition else []
    y, variables = jax.jit(lambda: case.ours.init_with_output(jax.random.key(0), x, *rest))()
    params = variables.pop("params")

    def turn(params, moving, x, cotangent):
        def loss(params, x):
            y, moved = case.ours.apply({"params": params, **moving}, x, *rest, mutable=list(moving))
            return jnp.sum(y * cotangent), moved

        return jax.grad(loss, (0, 1), has_aux=True)(params, x)

    arguments = params, variables, x, jax.random.normal(jax.random.key(1), y.shape, y.dtype)
    compiled = compilation.jit(turn).lower(*arguments).compile()
    return lambda: jax.block_until_ready(compiled(*arguments)), layer_flop(turn, *arguments), y.shape


def theirs(case, given, shape, dtype, compiled):
    """Returns a turn of PyTorch's."""
    module = case.theirs().to(DEVICE, memory_format=torch.channels_last).train()
    call = torch.compile(module) if compiled else module
    x, cotangent = (
        torch.tensor(array, device=DEVICE).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        for array in (given[0], np.random.default_rng(1).normal(size=shape).astype(np.float32))
    )
    condition = [torch.tensor(array, device=DEVICE) for array in given[1:]]
    x.requires_grad_()

    def turn():
        module.zero_grad()
        x.grad = None
        with torch.autocast(DEVICE, torch.bfloat16, enabled=dtype == "bfloat16"):
            y = call(x, *condition)
        y.backward(cotangent.to(y.dtype))
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    return turn


def seconds(turn):
    time.sleep(_PAUSE)
    turn()
    began = time.perf_counter()
    turn()
    return time.perf_counter() - began


def compare(name, case, flags):
    """Prints a row of the table."""
    given = inputs(case, flags.batch)
    mine, flop, shape = ours(case, given, flags.dtype)
    its = theirs(case, given, shape, flags.dtype, flags.compiled)
    mine(), its()
    turns = [(seconds(mine), seconds(its)) for _ in range(flags.rounds)]
    a, b = (1e3 * statistics.median(times) for times in zip(*turns, strict=True))
    print(
        f"| {name} | {flop / 1e9:.1f} | {a:.1f} | {b:.1f} | {statistics.median(b / a for a, b in turns):.2f} |",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--only", default="", help="a regular expression that the names of the blocks must match")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--compiled", action="store_true", help="run PyTorch's blocks through torch.compile")
    flags = parser.parse_args()
    keep_freed_memory()  # as `cgan train` does
    torch.set_float32_matmul_precision("high")  # TensorFloat-32 on CUDA, as in XLA
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}, torch {torch.__version__} on {DEVICE}")
    print(f"{flags.batch} images, {flags.dtype}\n")
    print("| block | GFLOP | ours, ms | PyTorch, ms | times ours |\n|---|---|---|---|---|")
    for name, case in CASES.items():
        if re.search(flags.only, name):
            compare(name, case, flags)


if __name__ == "__main__":
    main()
