"""What networks are trained by: terms, adversarial losses, regularizers.

May import data, networks and all below them.
"""
