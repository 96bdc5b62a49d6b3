"""Generators and discriminators, and the layers and convolutions that they are made of.

May import optimizers, files and all below them; not data.
"""
