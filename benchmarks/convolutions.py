"""Compares the lowerings of networks/convolution.py with plain lax, by shape and for a classic training step.

    python -m benchmarks.convolutions [--rounds=5] [--batch=128] [--calls=1] [--only=REGEX] [--dtype=float32]

Ours and lax's run in alternation. The table shows the medians, the GFLOP/s, and the median of the ratios per round. The
zeros of a dilated input do not count. A turn is `--calls` calls in a row with one wait at the end: on a GPU a single
call ends before the host has sent the next.
"""

import argparse
import functools
import re
import statistics
import time

import jax
import jax.numpy as jnp
from jax import lax

from cgan_jax import compilation
from cgan_jax.networks import convolution

# name: (operation, image size, kernel size, stride, input channels, output channels)
SHAPES = {
    "G transposed 4x4 s2, 8 to 16": ("conv_transpose", 8, 4, 2, 128, 128),
    "G transposed 4x4 s2, 16 to 32": ("conv_transpose", 16, 4, 2, 128, 128),
    "G last 8x8": ("conv", 32, 8, 1, 128, 3),
    "D first 3x3 s2": ("conv", 32, 3, 2, 3, 128),
    "D second 3x3 s2": ("conv", 16, 3, 2, 128, 128),
    "3x3 s1 at 16": ("conv", 16, 3, 1, 128, 128),
    "last 3x3": ("conv", 32, 3, 1, 128, 3),
    "narrow 3x3 s1 at 32, 24 to 64": ("conv", 32, 3, 1, 24, 64),
    "narrow 3x3 s1 at 16, 64 to 64": ("conv", 16, 3, 1, 64, 64),
    "widening 3x3 s1 at 16, 64 to 192": ("conv", 16, 3, 1, 64, 192),
    "deep G transposed 7x7 s2, 4 to 8": ("conv_transpose", 4, 7, 2, 257, 128),
    "deep G transposed 7x7 s2, 8 to 16": ("conv_transpose", 8, 7, 2, 128, 64),
    "deep G transposed 7x7 s2, 16 to 32": ("conv_transpose", 16, 7, 2, 64, 64),
    "deep G last 7x7": ("conv", 32, 7, 1, 64, 3),
    "deep G 7x7 s1 at 16": ("conv", 16, 7, 1, 64, 64),
    "deep D 5x5 s2, 32 to 16": ("conv", 32, 5, 2, 64, 64),
    "deep D 5x5 s2, 16 to 8": ("conv", 16, 5, 2, 64, 128),
    "deep D 5x5 s2, 8 to 4": ("conv", 8, 5, 2, 128, 256),
    "deep D 5x5 s2, 4 to 2": ("conv", 4, 5, 2, 256, 512),
    "transposed 3x3 s2, 16 to 32": ("conv_transpose", 16, 3, 2, 128, 128),
    "transposed 5x5 s2, 16 to 32": ("conv_transpose", 16, 5, 2, 128, 128),
}


def lax_conv(x, kernel, stride=1):
    return lax.conv_general_dilated(x, kernel, (stride,) * 2, "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def lax_conv_transpose(x, kernel, stride=2):
    return lax.conv_transpose(x, kernel, (stride,) * 2, "SAME")


OURS = {"conv": convolution.conv, "conv_transpose": convolution.conv_transpose}
LAX = {"conv": lax_conv, "conv_transpose": lax_conv_transpose}


def compare(name, functions, arguments, rounds, calls, flop):
    """Times functions (ours, lax) in alternation and prints a row of the table."""
    compiled = [compilation.jit(function).lower(*arguments).compile() for function in functions]
    for run in compiled:
        jax.block_until_ready(run(*arguments))
    seconds = [[], []]
    for _ in range(rounds):
        for run, times in zip(compiled, seconds, strict=True):
            start = time.perf_counter()
            results = [run(*arguments) for _ in range(calls)]
            jax.block_until_ready(results)
            times.append((time.perf_counter() - start) / calls)
    ours, theirs = map(statistics.median, seconds)
    ratio = statistics.median(b / a for a, b in zip(*seconds, strict=True))
    print(
        f"| {name} | {1e3 * theirs:.3g} | {1e3 * ours:.3g} | {flop / theirs / 1e9:.0f} | {flop / ours / 1e9:.0f}"
        f" | {ratio:.2f} |",
        flush=True,
    )


def compare_shape(name, spec, batch, rounds, calls, dtype):
    operation, size, taps, stride, channels_in, channels_out = spec
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (batch, size, size, channels_in), dtype)
    kernel = jax.random.normal(keys[1], (taps, taps, channels_in, channels_out), dtype)
    functions = [functools.partial(side[operation], stride=stride) for side in (OURS, LAX)]
    y = jax.random.normal(keys[2], jax.eval_shape(functions[0], x, kernel).shape, dtype)
    small = size if operation == "conv_transpose" else size // stride
    flop = 2 * batch * small**2 * taps**2 * channels_in * channels_out

    def input_gradient(function):
        return lambda x, kernel, y: jax.vjp(lambda x: function(x, kernel), x)[1](y)[0]

    def kernel_gradient(function):
        return lambda x, kernel, y: jax.vjp(lambda kernel: function(x, kernel), kernel)[1](y)[0]

    compare(f"{name}: forward", functions, (x, kernel), rounds, calls, flop)
    compare(f"{name}: input gradient", [input_gradient(f) for f in functions], (x, kernel, y), rounds, calls, flop)
    # lax's kernel gradient of a transposed convolution takes seconds on a CPU.
    compare(
        f"{name}: kernel gradient", [kernel_gradient(f) for f in functions], (x, kernel, y), min(rounds, 3), calls, flop
    )


def classic_step(side, dtype):
    """The step of the classic pair: D on 64 real, D on 64 fake, G on 128 with D frozen; plain Adam for both."""
    conv, conv_transpose = side["conv"], side["conv_transpose"]
    leaky = functools.partial(jax.nn.leaky_relu, negative_slope=0.2)

    def generate(g, latents):
        h = leaky(latents @ g["dense"]).reshape(-1, 8, 8, 128)
        h = leaky(conv_transpose(h, g["up1"]))
        return jnp.tanh(conv(leaky(conv_transpose(h, g["up2"])), g["last"]))

    def discriminate(d, images):
        h = leaky(conv(leaky(conv(images, d["conv1"], 2)), d["conv2"], 2))
        return (h.reshape(h.shape[0], -1) @ d["dense"])[:, 0].astype(jnp.float32)

    def update(loss, params, moments):
        gradient = jax.grad(loss)(params)
        first = jax.tree.map(lambda m, g: 0.5 * m + 0.5 * g, moments[0], gradient)
        second = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, moments[1], gradient)
        moved = jax.tree.map(lambda p, m, v: p - 2e-4 * m / (jnp.sqrt(v) + 1e-7), params, first, second)
        return moved, (first, second)

    def step(state, real, latents):
        g, d, g_moments, d_moments = state
        d, d_moments = update(lambda d: jnp.mean(jax.nn.softplus(-discriminate(d, real))), d, d_moments)
        fake = generate(g, latents[: real.shape[0]])
        d, d_moments = update(lambda d: jnp.mean(jax.nn.softplus(discriminate(d, fake))), d, d_moments)
        g_loss = lambda g: jnp.mean(jax.nn.softplus(-discriminate(d, generate(g, latents))))  # noqa: E731
        g, g_moments = update(g_loss, g, g_moments)
        return g, d, g_moments, d_moments

    shapes = (
        {"dense": (100, 8192), "up1": (4, 4, 128, 128), "up2": (4, 4, 128, 128), "last": (8, 8, 128, 3)},
        {"conv1": (3, 3, 3, 128), "conv2": (3, 3, 128, 128), "dense": (8192, 1)},
    )
    g, d = jax.tree.map(
        lambda s: 0.02 * jax.random.normal(jax.random.key(s[-1]), s, dtype),
        shapes,
        is_leaf=lambda s: isinstance(s, tuple) and isinstance(s[0], int),
    )
    zeros = functools.partial(jax.tree.map, jnp.zeros_like)
    real = jax.random.uniform(jax.random.key(1), (64, 32, 32, 3), dtype, -1)
    latents = jax.random.normal(jax.random.key(2), (128, 100), dtype)
    return step, ((g, d, (zeros(g), zeros(g)), (zeros(d), zeros(d))), real, latents)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=128, help="images")
    parser.add_argument("--calls", type=int, default=1, help="calls per turn")
    parser.add_argument("--only", default="", help="a regular expression that the names of the shapes must match")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--step", action=argparse.BooleanOptionalAction, default=True)
    flags = parser.parse_args()
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}, {flags.dtype}")
    square = jnp.ones((2048, 2048), flags.dtype)
    shapes = {name: spec for name, spec in SHAPES.items() if re.search(flags.only, name)}
    print("| | lax ms | ours ms | lax GFLOP/s | ours GFLOP/s | times faster |\n|---|---|---|---|---|---|")
    compare(
        "ceiling: matrix product 2048",
        [jnp.matmul, jnp.matmul],
        (square, square),
        flags.rounds,
        flags.calls,
        2 * 2048**3,
    )
    for name, spec in shapes.items():
        compare_shape(name, spec, flags.batch, flags.rounds, flags.calls, jnp.dtype(flags.dtype))
    if flags.step:
        (ours, arguments), (theirs, _) = classic_step(OURS, flags.dtype), classic_step(LAX, flags.dtype)
        compare("classic step, 111.7 GFLOP", [ours, theirs], arguments, min(flags.rounds, 3), flags.calls, 111.7e9)


if __name__ == "__main__":
    main()
