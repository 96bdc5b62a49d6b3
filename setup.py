"""Adds the packages to setup.cfg: configs/ lies beside the package in the repository, and in it once installed."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["cgan_jax", "cgan_jax.*"]), "cgan_jax.configs"],
    package_dir={"cgan_jax.configs": "configs"},
)
