"""Layers written out as NumPy loops over their definitions, in float64, for tests to compare with."""

import numpy as np


def conv(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray, stride: int) -> np.ndarray:
    """out[i, j] = sum over taps padded[stride i + a, stride j + b] kernel[a, b], "same" padding, the odd one last."""
    n, height, width, _ = x.shape
    size, out = kernel.shape[0], (-(-height // stride), -(-width // stride))
    pads = [max((o - 1) * stride + size - s, 0) for o, s in zip(out, (height, width), strict=True)]
    padded = np.pad(x.astype(np.float64), [(0, 0), *((p // 2, p - p // 2) for p in pads), (0, 0)])
    result = np.zeros((n, *out, kernel.shape[3]))
    for i in range(out[0]):
        for j in range(out[1]):
            patch = padded[:, stride * i : stride * i + size, stride * j : stride * j + size]
            result[:, i, j] = np.einsum("nabc,abcd->nd", patch, kernel.astype(np.float64))
    return result + bias


def conv_transpose(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray, stride: int) -> np.ndarray:
    """Every pixel adds its kernel, mirrored as a correlation has it, to the output around stride times its place."""
    n, height, width, _ = x.shape
    size = kernel.shape[0]
    flipped = kernel[::-1, ::-1].astype(np.float64)
    full = np.zeros((n, stride * (height - 1) + size, stride * (width - 1) + size, kernel.shape[3]))
    for i in range(height):
        for j in range(width):
            full[:, stride * i : stride * i + size, stride * j : stride * j + size] += np.einsum(
                "nc,abcd->nabd", x[:, i, j].astype(np.float64), flipped
            )
    cut = (size - stride) // 2
    return full[:, cut : cut + stride * height, cut : cut + stride * width] + bias


def leaky_relu(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, x / 5)


def dense(x: np.ndarray, params: dict) -> np.ndarray:
    return np.asarray(x, np.float64) @ np.asarray(params["kernel"], np.float64) + np.asarray(params["bias"])


def label_map(labels: np.ndarray, params: dict, side: int) -> np.ndarray:
    embedding = np.asarray(params["Embed_0"]["embedding"])[labels]
    return dense(embedding, params["Dense_0"]).reshape(-1, side, side, 1)
