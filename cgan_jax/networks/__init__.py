"""Generators and discriminators, and the layers, heads and convolutions that they consist of.

May import optimizers, files and all below them; not data.
"""
