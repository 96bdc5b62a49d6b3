"""Labelled images: where they come from, which batch is next, and where the devices hold them.

May import augment, files and all below them; not networks.
"""
