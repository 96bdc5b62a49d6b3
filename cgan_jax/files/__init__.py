"""Bytes on disks, in buckets and on the network. Knows no GANs.

May import lookup, errors and parallel only.
"""
