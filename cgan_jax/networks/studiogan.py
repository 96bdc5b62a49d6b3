"""The weights of PyTorch-StudioGAN's SNGAN and BigGAN (Kang et al. 2023) as variables of our networks.

A tensor there has a name such as blocks.0.0.conv2d1.weight, and has its features first. Feature maps are [N, C, H, W],
so the features of the first layer have another order. BigGAN joins the class's embedding and a part of the latents in
this order, and we in the other.

Layers with spectral norm hold weight_orig and estimates of two singular vectors. A file of averages averages these too,
which makes them shorter than 1. StudioGAN computes standing statistics before it evaluates, and its power iterations
then converge. So our state gets the vectors to which they converge, and the estimates are not read.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from cgan_jax.errors import UsageError
from cgan_jax.networks.anatomy import named

FIELDS = {
    "generator": {"dtype": "float32"},
    "discriminator": {"dtype": "float32", "rectified_shortcuts": True},
}
"""What a recipe must say for the networks to compute what theirs compute."""

_OUTSIDE = {
    "Dense_0": "linear0",
    "Embed_0": "shared",
    "BatchNorm_0": "bn4",
    "Conv_0": "conv2d5",
    "Projection_0.Dense_0": "linear1",
    "Projection_0.Embed_0": "embedding",
}
_NORMS = {
    f"{kind}BatchNorm_{i}{ours}": f"bn{i + 1}.{theirs}"
    for kind in ("Class", "Conditional")
    for i in (0, 1)
    for ours, theirs in (("", "bn"), (".scale", "gain"), (".bias", "bias"))
}
_GENERATOR = {"UpsampledConv_0": "conv2d1", "Conv_0": "conv2d2", "Conv_1": "conv2d0", **_NORMS}
_HALVING = {"Conv_0": "conv2d1", "PooledConv_0": "conv2d2", "Conv_1": "conv2d0"}
_KEEPING = {"Conv_0": "conv2d1", "Conv_1": "conv2d2", "Conv_2": "conv2d0"}
_ATTENTION = {f"Conv_{i}": f"conv1x1_{name}" for i, name in enumerate(("theta", "phi", "g", "attn"))}
_KINDS = {"bias": "bias", "scale": "weight", "mean": "running_mean", "variance": "running_var", "gate": "sigma"}
_U = "spectral."
_NOT_READ = ("num_batches_tracked", "weight_u", "weight_v")


def converted(theirs: Mapping[str, np.ndarray], ours: Any, player: str, file: str) -> Any:
    """Variables of the shapes in `ours` from the tensors of a file. Raises UsageError if these are another network's.

    `player` is "generator" or "discriminator".
    """
    reader = _Reader(theirs, named(ours), _layers(ours["params"]), f"{file} is not the recipe's {player}")
    parameters_first = sorted(named(ours).items(), key=lambda pair: not pair[0].startswith("params."))
    arrays = {name: reader.array(name, leaf.shape) for name, leaf in parameters_first if not name.startswith(_U)}
    reader.check_all_read()
    for name in named(ours):
        if name not in arrays:
            layer = name.removeprefix(_U).removesuffix(".SpectralNorm_0.u")
            kernel = arrays[f"params.{layer}.{'embedding' if layer.endswith('Embed_0') else 'kernel'}"]
            arrays[name] = _singular_vector(kernel.reshape(-1, kernel.shape[-1]))
    return jax.tree.unflatten(jax.tree.structure(ours), [arrays[name].astype(np.float32) for name in named(ours)])


def _layers(params: Mapping[str, Any]) -> dict[str, str]:
    """{the path of our layer: the name of theirs}, for all that may be in such a network."""
    found = dict(_OUTSIDE)
    blocks = sorted(name for name in params if "Block_" in name)
    if "SelfAttention_0" in params:  # before the generator's last block, and after the discriminator's first
        blocks.insert(-1 if "Dense_0" in params else 1, "SelfAttention_0")
    for place, block in enumerate(blocks):
        kind = block.partition("_")[0]
        of_discriminator = _HALVING if "PooledConv_0" in params[block] else _KEEPING
        inside = {"SelfAttention": _ATTENTION, "GeneratorBlock": _GENERATOR}.get(kind, of_discriminator)
        found[block] = f"blocks.{place}.0"
        found |= {f"{block}.{ours}": f"blocks.{place}.0.{theirs}" for ours, theirs in inside.items()}
    return found


class _Reader:
    """The tensors of one file, and which of them were read."""

    def __init__(self, theirs: Mapping[str, np.ndarray], ours: Mapping[str, Any], layers: dict[str, str], wrong: str):
        """`wrong` begins what is said of a tensor that does not fit."""
        self._theirs = {_newer(name): array if _newer(name) == name else array.T for name, array in theirs.items()}
        self._ours, self._layers, self._wrong = ours, layers, wrong
        self._read: set[str] = set()

    def array(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """The array of the variable `name`, of that shape."""
        path, _, kind = name.partition(".")[2].rpartition(".")
        layer = self._layers[path]
        if kind not in ("kernel", "embedding"):
            array = self._tensor(f"{layer}.{_KINDS[kind]}", shape or (1,)).reshape(shape)
        else:
            has_norm = f"{_U}{path}.SpectralNorm_0.u" in self._ours
            transposed = (3, 2, 0, 1) if len(shape) == 4 else (1, 0)
            lies_alike = layer in ("shared", "embedding")
            there = shape if lies_alike else tuple(shape[axis] for axis in transposed)
            array = self._tensor(f"{layer}.weight{'_orig' if has_norm else ''}", there)
            array = array if lies_alike else array.transpose(np.argsort(transposed))
        if layer == "linear0":
            maps = array.reshape(*array.shape[:-1], -1, 4, 4)
            array = np.moveaxis(maps, -3, -1).reshape(array.shape)
        if ".ConditionalBatchNorm_" in path and kind == "kernel" and "params.Embed_0.embedding" in self._ours:
            array = np.roll(array, -self._ours["params.Embed_0.embedding"].shape[1], axis=0)
        return array

    def check_all_read(self) -> None:
        """Raises UsageError if the file holds more than what was read."""
        others = [name for name in self._theirs if name not in self._read and not name.endswith(_NOT_READ)]
        if others:
            raise UsageError(f"{self._wrong}: it also holds {_some(others)}, which this has not")

    def _tensor(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name not in self._theirs:
            raise UsageError(f"{self._wrong}: {name} is missing; it holds {_some(list(self._theirs))}")
        array = self._theirs[name]
        if array.shape != shape or not np.issubdtype(array.dtype, np.floating):
            raise UsageError(
                f"{self._wrong}: {name} is {array.dtype} {list(array.shape)}, and must be float32 {list(shape)}"
            )
        if not np.all(np.isfinite(array)):
            raise UsageError(f"{self._wrong}: {name} has values that are not finite")
        self._read.add(name)
        return array


def _newer(name: str) -> str:
    """The name since StudioGAN's InfoGAN. Before it, SNGAN's scales and biases were embeddings, the transposed maps."""
    return name.replace(".embed0.", ".gain.").replace(".embed1.", ".bias.")


def _some(names: list[str]) -> str:
    return (", ".join(names[:3]) or "nothing") + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _singular_vector(matrix: np.ndarray) -> np.ndarray:
    """The unit vector u of [F] for which |M u| is largest, M being [I, F]."""
    matrix = matrix.astype(np.float64)
    if matrix.shape[0] < matrix.shape[1]:  # by the smaller of two square matrices
        vector = matrix.T @ np.linalg.eigh(matrix @ matrix.T)[1][:, -1]
        return vector / np.linalg.norm(vector)
    return np.linalg.eigh(matrix.T @ matrix)[1][:, -1]
