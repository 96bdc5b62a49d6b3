"""How good a generator is: metrics, the networks whose features they compare, how fast a recipe runs.

May import sampling, run and all below them; not serving or train.
"""
