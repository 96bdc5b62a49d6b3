"""StyleGAN2 for images of 8, 16, 32, ... pixels (Karras et al. 2020, "Analyzing and Improving the Image Quality of
StyleGAN"), with classes and without path length regularisation as StyleGAN2-ADA trains CIFAR-10.

A mapping of a few dense layers turns latents and class into a style. In each convolution an affine map of the style
scales the input's channels, and outputs are divided by the deviation that this gives them (their eq. 1 to 3). Scaling
the channels of x is scaling those of the kernel, so all images of a batch share one convolution:

    y = d conv(s x, kernel)        d = 1 / sqrt(sum over taps and inputs of (s kernel)^2)

Rates are equalised (Karras et al. 2018, section 4.1): weights start normal, and a constant outside divides by the root
of the fan in. act is LeakyReLU 0.2 times sqrt(2). Resampling filters with [1, 3, 3, 1].
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from cgan_jax import parallel
from cgan_jax.errors import UsageError
from cgan_jax.lookup import entry_named
from cgan_jax.networks import convolution, heads
from cgan_jax.networks.blocks import recomputed
from cgan_jax.networks.heads import Output
from cgan_jax.networks.layers import Dense, activation_dtype, leaky_relu

_FIRST = 4  # pixels
_MAPPING_RATE = 0.01
_MOMENTUM = 0.995  # of running means
_EPSILON = 1e-8
_NORMAL = nn.initializers.normal(1.0)


class Generator(nn.Module):
    """Latents and label -> a style -> a constant of 4x4 -> blocks, each twice as large -> the sum of their colours."""

    image_size: int
    channels: int
    num_classes: int
    latent_dim: int
    style_dim: int
    """Of the style, of the mapping's layers and of the class's embedding."""
    mapping_layers: int
    width: int
    """Channels at every size."""
    style_mixing: float
    """The share of images in training whose last layers have the style of other latents (Karras et al. 2019)."""
    dtype: str
    """Of the activations at more than 4 pixels; parameters and the first block are float32."""
    remat: bool = False
    """Whether the backward pass computes each block's activations again, which saves memory and takes time."""

    @nn.compact
    def __call__(self, latents: jax.Array, labels: jax.Array, train: bool) -> jax.Array:
        sides, n = _sides(self.image_size), latents.shape[0]
        # Training gives each image its noise. Outside, all have the same: an image depends on latents and label alone.
        keys = parallel.sample_keys(self.make_rng("noise"), n) if self.has_rng("noise") else None
        mapping = Style(self.num_classes, self.style_dim, self.mapping_layers, name="mapping")
        style = Centre(self.num_classes, name="centre")(mapping(latents, labels), labels, train)
        styles = [style] * 2 * len(sides)
        if train and keys is not None and self.style_mixing:
            styles = self._mixed(styles, lambda others: mapping(others, labels))

        block_class = recomputed(Block, self.remat)
        constant = self.param("constant", _NORMAL, (_FIRST, _FIRST, self.width))
        x, image = jnp.broadcast_to(constant, (n, *constant.shape)), 0.0
        for number, side in enumerate(sides):
            # The colours of a block and the first convolution of the next one have the same style.
            of_block = styles[max(0, 2 * number - 1) : 2 * number + 2]
            x = x.astype(activation_dtype(self.dtype) if number else jnp.float32)
            x, colours = block_class(self.width, self.channels, name=f"block{side}")(x, of_block, keys)
            image = filtered(image, (2, 2), gain=2, between=1) + colours if number else colours
        return image

    def _mixed(self, styles: list[jax.Array], mapping) -> list[jax.Array]:
        """The styles of the layers; with probability style_mixing those from a random layer on are of other latents."""
        n = styles[0].shape[0]
        keys = parallel.sample_keys(self.make_rng("noise"), n)
        mixes, layer, draw = jax.vmap(lambda key: jax.random.split(key, 3), out_axes=1)(keys)
        others = mapping(jax.vmap(lambda key: jax.random.normal(key, (self.latent_dim,)))(draw))
        first = jax.vmap(lambda key: jax.random.randint(key, (), 1, len(styles)))(layer)
        happens = jax.vmap(jax.random.uniform)(mixes) < self.style_mixing
        return [jnp.where((happens & (first <= i))[:, None], others, style) for i, style in enumerate(styles)]


class Discriminator(nn.Module):
    """Colours -> blocks, each half as large -> the batch's deviation as one more channel -> features -> the head."""

    image_size: int
    channels: int
    num_classes: int
    width: int
    """Channels at every size, and features."""
    group: int
    """Images of the global batch, one after the other, of which the deviation is taken."""
    head: str
    """How the head uses classes: mapped_projection, or projection, auxiliary_classifier or class_proxies."""
    dtype: str
    """Of the activations at more than 4 pixels; parameters and what follows are float32."""
    mapping_layers: int = 8
    """Of mapped_projection."""
    remat: bool = False

    couples_samples = True

    @nn.compact
    def __call__(self, images: jax.Array, labels: jax.Array, train: bool) -> Output:
        sides = _sides(self.image_size)
        block_class = recomputed(HalvingBlock, self.remat)
        x = EqualizedConv(self.width, 1, name="colours")(images.astype(activation_dtype(self.dtype)))
        for side in sides[:0:-1]:
            x = block_class(self.width, name=f"block{side}")(x)
        x = BatchDeviation(self.group, name="deviation")(x.astype(jnp.float32), train)
        x = EqualizedConv(self.width, 3, name="last")(x)
        features = act(EqualizedDense(self.width, name="features")(x.reshape(x.shape[0], -1)))
        table = {"mapped_projection": functools.partial(MappedProjection, layers=self.mapping_layers)}
        make = entry_named({**table, **heads.OF_CLASSES}, self.head, "head")
        head = functools.partial(make, self.num_classes) if self.num_classes else heads.Unconditional
        # Features over the root of their number equalise the rates of every head.
        return head(kernel_init=_NORMAL)(features / self.width**0.5, labels)


class Style(nn.Module):
    """Latents float [N, L] and labels int32 [N] -> styles float32 [N, style_dim]."""

    num_classes: int
    style_dim: int
    layers: int

    @nn.compact
    def __call__(self, latents: jax.Array, labels: jax.Array) -> jax.Array:
        x = _unit(latents.astype(jnp.float32))
        if self.num_classes:
            x = jnp.concatenate([x, ClassVector(self.num_classes, self.style_dim, name="embedding")(labels)], axis=1)
        return _mapped(x, self.style_dim, self.layers)


class ClassVector(nn.Module):
    """A linear map of one-hot labels, int32 [N] -> float32 [N, features], of mean square 1."""

    num_classes: int
    features: int

    @nn.compact
    def __call__(self, labels: jax.Array) -> jax.Array:
        return _unit(EqualizedDense(self.features, name="linear")(jax.nn.one_hot(labels, self.num_classes)))


class Centre(nn.Module):
    """Keeps the mean style of each class in training; outside, pulls styles [N, S] toward it: truncation.

    Collection "styles" has `sums` [C, S] and `shares` [C], running means whose quotient is a class's mean style. Both
    are linear in styles, so that averages of generators have averages of them. Collection "truncation" has the `share`
    of the distance from the mean that is left, which sampling sets; from 1 on, styles stay as they are.
    """

    num_classes: int

    @nn.compact
    def __call__(self, styles: jax.Array, labels: jax.Array, train: bool) -> jax.Array:
        classes = max(1, self.num_classes)
        sums = self.variable("styles", "sums", jnp.zeros, (classes, styles.shape[1]))
        shares = self.variable("styles", "shares", jnp.zeros, (classes,))
        share = self.variable("truncation", "share", jnp.ones, ())
        labels = labels if self.num_classes else jnp.zeros_like(labels)
        if not train:
            mean = (sums.value / jnp.maximum(shares.value, 1e-12)[:, None])[labels]
            return styles + (jnp.minimum(share.value, 1) - 1) * (styles - mean)
        if self.is_mutable_collection("styles") and not self.is_initializing():
            of_class = jax.nn.one_hot(labels, classes) / len(labels)
            summed = jnp.einsum("nc,ns->cs", of_class, styles, precision=lax.Precision.HIGHEST)
            batch = summed, jnp.sum(of_class, axis=0)
            for running, current in zip((sums, shares), parallel.mean(batch), strict=True):
                running.value = _moved(running.value, current)
        return styles


class Block(nn.Module):
    """Convolutions with styles, and colours: x -> (x [N, H, W, features], colours float32 [N, H, W, channels]).

    With three styles the first convolution doubles the sides. With two, in the first block, there is none.
    """

    features: int
    channels: int

    @nn.compact
    def __call__(self, x: jax.Array, styles: list[jax.Array], keys: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        *doubling, style, of_colours = styles
        for first in doubling:
            x = StyledConv(self.features, doubles=True, name="doubling")(x, first, keys)
        x = StyledConv(self.features, name="conv")(x, style, keys)
        return x, Colours(self.channels, name="colours")(x, of_colours)


class StyledConv(nn.Module):
    """A modulated and demodulated 3x3 convolution, noise, bias, act: [N, H, W, I] -> [N, H, W, features].

    If it `doubles`, [N, 2H, 2W, features]: a transposed convolution of stride 2, filtered. Every pixel of an image has
    its noise, the same for all channels, times a learned strength.
    """

    features: int
    doubles: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, style: jax.Array, keys: jax.Array | None) -> jax.Array:
        scales = EqualizedDense(x.shape[-1], start=1.0, name="style")(style)
        kernel = self.param("kernel", _NORMAL, (3, 3, x.shape[-1], self.features))
        variances = jnp.square(scales) @ jnp.sum(jnp.square(kernel), axis=(0, 1))
        x, kernel = x * _of_image(scales, x), kernel.astype(x.dtype)
        if self.doubles:
            x = filtered(convolution.conv_transpose(x, kernel, 2, "VALID"), (1, 1), gain=2)
        else:
            x = convolution.conv(x, kernel)
        x *= _of_image(lax.rsqrt(variances + _EPSILON), x)
        strength = self.param("noise", nn.initializers.zeros, ())
        x += (strength * noise(keys, x.shape[1], self.doubles)).astype(x.dtype)
        return act(_biased(self, x))


class Colours(nn.Module):
    """A modulated 1x1 convolution without demodulation and act: [N, H, W, I] -> float32 [N, H, W, channels]."""

    channels: int

    @nn.compact
    def __call__(self, x: jax.Array, style: jax.Array) -> jax.Array:
        scales = EqualizedDense(x.shape[-1], start=1.0, name="style")(style)
        kernel = _weights(self, (x.shape[-1], self.channels)).astype(x.dtype)
        return _biased(self, (x * _of_image(scales, x)) @ kernel).astype(jnp.float32)


class HalvingBlock(nn.Module):
    """Two 3x3 convolutions, the second of stride 2 after a filter: [N, 2H, 2W, C] -> [N, H, W, features]."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = EqualizedConv(self.features, 3, name="conv")(x)
        return EqualizedConv(self.features, 3, halves=True, name="halving")(x)


class EqualizedConv(nn.Module):
    """A square convolution, bias, act: [N, H, W, I] -> [N, H, W, features], or half the sides if it `halves`."""

    features: int
    size: int
    halves: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = _weights(self, (self.size, self.size, x.shape[-1], self.features)).astype(x.dtype)
        x = convolution.conv(filtered(x, (2, 2)), kernel, 2, "VALID") if self.halves else convolution.conv(x, kernel)
        return act(_biased(self, x))


class EqualizedDense(nn.Module):
    """A matrix product and a bias that starts at `start`: [N, F] -> [N, features], float32.

    Parameters are 1 / rate as large as their effect, so that Adam moves the effect `rate` times as much.
    """

    features: int
    rate: float = 1.0
    start: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return _biased(self, x @ _weights(self, (x.shape[-1], self.features), self.rate), self.rate, self.start)


class BatchDeviation(nn.Module):
    """Adds a channel to features [N, H, W, C]: how much a group of images differs (Karras et al. 2018, section 3).

    That is the deviation within the group, averaged over features and pixels. Training takes groups of the global
    batch, so one device and eight compute the same. Outside, an image has the running mean of the training's.
    """

    group: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        running = self.variable("batch_stats", "deviation", jnp.zeros, ())
        if train:
            deviations = group_deviations(x, self.group)
            if self.is_mutable_collection("batch_stats") and not self.is_initializing():
                running.value = _moved(running.value, parallel.mean(jnp.mean(deviations)))
        else:
            deviations = jnp.full(x.shape[:1], running.value)
        channel = jnp.broadcast_to(deviations[:, None, None, None], (*x.shape[:3], 1))
        return jnp.concatenate([x, channel], axis=-1)


def group_deviations(x: jax.Array, group: int) -> jax.Array:
    """The mean deviation within each image's group of the global batch, [N, H, W, C] -> [N].

    A group is `group` images that follow each other, or the largest divisor of it that divides the batch. Raises
    UsageError where a group does not lie within a part of an accumulated batch.
    """
    n = x.shape[0]
    size = math.gcd(group, n * parallel.count())
    spans_devices = n % size != 0
    if spans_devices:
        parallel.need_whole_batch(f"groups of {size} images")
        x = parallel.gathered(x)
    groups = x.reshape(-1, size, *x.shape[1:])
    variances = jnp.mean(jnp.square(groups - jnp.mean(groups, axis=1, keepdims=True)), axis=1)
    deviations = jnp.repeat(jnp.mean(jnp.sqrt(variances + _EPSILON), axis=(1, 2, 3)), size)
    return lax.dynamic_slice_in_dim(deviations, n * parallel.index(), n) if spans_devices else deviations


class MappedProjection(nn.Module):
    """The inner product of a linear map of features [N, F] with a mapped class, over the root of F."""

    num_classes: int
    layers: int
    kernel_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, features: jax.Array, labels: jax.Array) -> Output:
        width = features.shape[1]
        direction = _mapped(ClassVector(self.num_classes, width, name="embedding")(labels), width, self.layers)
        image = Dense(width, self.kernel_init, name="linear")(features)
        return Output(jnp.sum(image * direction, axis=1) / width**0.5, {})


def _mapped(x: jax.Array, features: int, layers: int) -> jax.Array:
    """x [N, F] after so many dense layers with act, of a hundredth of the learning rate."""
    for layer in range(layers):
        x = act(EqualizedDense(features, _MAPPING_RATE, name=f"layer{layer}")(x))
    return x


def _weights(layer: nn.Module, shape: tuple[int, ...], rate: float = 1.0) -> jax.Array:
    """A layer's normal parameter over the root of its fan in; see EqualizedDense for the rate."""
    return layer.param("kernel", nn.initializers.normal(1 / rate), shape) * (rate / math.prod(shape[:-1]) ** 0.5)


def _biased(layer: nn.Module, x: jax.Array, rate: float = 1.0, start: float = 0.0) -> jax.Array:
    """x [..., F] plus a layer's bias, which starts at `start`."""
    bias = rate * layer.param("bias", nn.initializers.constant(start / rate), x.shape[-1:])
    return x + bias.reshape((1,) * (x.ndim - 1) + (-1,)).astype(x.dtype)


def _unit(x: jax.Array) -> jax.Array:
    """Vectors [N, F] scaled to mean square 1."""
    return x * lax.rsqrt(jnp.mean(jnp.square(x), axis=1, keepdims=True) + _EPSILON)


def _moved(running: jax.Array, current: jax.Array) -> jax.Array:
    return _MOMENTUM * running + (1 - _MOMENTUM) * current


def _of_image(vectors: jax.Array, x: jax.Array) -> jax.Array:
    """[N, C] reshaped to broadcast over the pixels of x [N, H, W, C], in its dtype."""
    return vectors[:, None, None, :].astype(x.dtype)


def act(x: jax.Array) -> jax.Array:
    """LeakyReLU 0.2 times sqrt(2), which keeps the mean square of normal features near 1."""
    return 2**0.5 * leaky_relu(x)


def noise(keys: jax.Array | None, side: int, doubles: bool) -> jax.Array:
    """Normal noise for the layer of that output and kind: float32 [N, side, side, 1], by the keys [N] of the images.

    Without keys [1, side, side, 1], always the same.
    """
    layer = 2 * side + doubles
    each = jax.random.key(0, impl=parallel.PRNG)[None] if keys is None else keys
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, layer), (side, side, 1)))(each)


def filtered(x: jax.Array, outside: tuple[int, int], gain: float = 1.0, between: int = 0) -> jax.Array:
    """x [N, H, W, C] filtered with gain * [1, 3, 3, 1] / 8 along both sides.

    First pixels of 0 are added: so many before and after, and `between` between two pixels.
    """
    zero = jnp.zeros((), x.dtype)
    for axis in (1, 2):
        x = lax.pad(x, zero, [(*outside, between) if a == axis else (0, 0, 0) for a in range(4)])
        last = x.shape[axis] - 3
        first, second, third, fourth = (lax.slice_in_dim(x, tap, tap + last, axis=axis) for tap in range(4))
        x = (gain / 8) * (first + fourth + 3 * (second + third))
    return x


def _sides(image_size: int) -> list[int]:
    """4, 8, ..., image_size. Raises UsageError for an image size that the networks cannot have."""
    sides = [_FIRST << doubling for doubling in range(max(2, (image_size // _FIRST).bit_length()))]
    if sides[-1] != image_size:
        raise UsageError(f"stylegan2 draws images of 8 times a power of two pixels, given image_size {image_size}")
    return sides
