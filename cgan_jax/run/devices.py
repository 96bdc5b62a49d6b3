"""Published numbers of accelerators: the peak of their arithmetic, their memory and its bandwidth.

The numbers are those of Google Cloud's pages on the system architecture of each TPU, and of NVIDIA's datasheets of the
H100 SXM, H200 SXM, A100 SXM 40GB, L4 and the Ada architecture (RTX 4090), for dense matrices. The memory that a program
may have on a TPU is what libtpu 0.0.42.1 grants. A TPU's clock follows from its peak and its matrix units, of which the
v6e is taken to have four of 256x256. With the default precision a float32 product runs as TensorFloat-32 on NVIDIA's
devices, and as one bfloat16 pass on a TPU.
"""

from typing import NamedTuple


class Device(NamedTuple):
    """What a datasheet says of one device, which JAX may see under several kinds."""

    kinds: tuple[str, ...]
    """`jax.Device.device_kind`."""
    bfloat16: float
    """FLOP/s."""
    float32: float
    """FLOP/s of float32 products at the default precision."""
    bytes_per_sec: float
    memory: int
    """Bytes."""
    share: float
    """The share of its memory that JAX takes by default."""
    clock: float = 0.0
    """Hz, of a TPU: the unit of its compiler's estimates."""

    def peak(self, dtype: str) -> float:
        """FLOP/s of products of this dtype."""
        return self.bfloat16 if dtype in ("bfloat16", "float16") else self.float32


_GB, _GIB = 10**9, 2**30
_OF_GPU = 0.75

DEVICES = {
    "v4": Device(("TPU v4",), 275e12, 275e12, 1200e9, 32 * _GIB, 30.75 / 32, 1.05e9),
    "v5e": Device(("TPU v5 lite", "TPU v5e"), 197e12, 197e12, 819e9, 16 * _GIB, 15.75 / 16, 1.5e9),
    "v5p": Device(("TPU v5", "TPU v5p"), 459e12, 459e12, 2765e9, 96 * _GIB, 95.74 / 96, 1.75e9),
    "v6e": Device(("TPU v6 lite", "TPU v6e"), 918e12, 918e12, 1640e9, 32 * _GIB, 31.25 / 32, 1.75e9),
    "h100": Device(("NVIDIA H100 80GB HBM3",), 989e12, 494e12, 3352e9, 84_942_979_072, _OF_GPU),
    "h200": Device(("NVIDIA H200",), 989e12, 494e12, 4800e9, 150_754_820_096, _OF_GPU),
    "a100": Device(("NVIDIA A100-SXM4-40GB",), 312e12, 156e12, 1555e9, 42_297_786_368, _OF_GPU),
    "l4": Device(("NVIDIA L4",), 121e12, 60e12, 300e9, 23_599_251_456, _OF_GPU),
    "rtx4090": Device(("NVIDIA GeForce RTX 4090",), 165e12, 83e12, 1008e9, 25_393_692_672, _OF_GPU),
}


def known(kind: str) -> Device | None:
    """The published numbers of a device of this `device_kind`, None if the table lacks it."""
    return next((device for device in DEVICES.values() if kind in device.kinds), None)
