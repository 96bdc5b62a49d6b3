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


def leaky_relu(x: np.ndarray, slope: float = 0.2) -> np.ndarray:
    return np.where(x > 0, x, x * slope)


def upsample(x: np.ndarray) -> np.ndarray:
    """Every pixel as a block of 2x2."""
    return np.kron(x, np.ones((1, 2, 2, 1)))


def halve(x: np.ndarray) -> np.ndarray:
    """The mean of every block of 2x2; of an odd side's last row or column, of what there is."""
    n, height, width, channels = x.shape
    result = np.zeros((n, -(-height // 2), -(-width // 2), channels))
    for i in range(result.shape[1]):
        for j in range(result.shape[2]):
            result[:, i, j] = x[:, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean(axis=(1, 2))
    return result


def batch_norm(x: np.ndarray, scale: np.ndarray, bias: np.ndarray, epsilon: float = 1e-5) -> np.ndarray:
    """Ioffe & Szegedy 2015, algorithm 1: over all axes but the last."""
    every_sample = tuple(range(x.ndim - 1))
    return (x - x.mean(axis=every_sample)) / np.sqrt(x.var(axis=every_sample) + epsilon) * scale + bias


def dense(x: np.ndarray, params: dict) -> np.ndarray:
    return np.asarray(x, np.float64) @ np.asarray(params["kernel"], np.float64) + np.asarray(params["bias"])


def label_map(labels: np.ndarray, params: dict, side: int) -> np.ndarray:
    embedding = np.asarray(params["Embed_0"]["embedding"])[labels]
    return dense(embedding, params["Dense_0"]).reshape(-1, side, side, 1)
