"""What the optimizers minimise: adversarial losses, regularizers, and the contract that they share (terms.py).

May import data, networks and all below them.
"""
