"""A trained model on the web: what draws, a queue before it, a JSON interface, and a page of three files.

May import sampling, run and all below them; not evaluation or train.
"""
