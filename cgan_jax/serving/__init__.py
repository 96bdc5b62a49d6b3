"""A trained model as a web page and a JSON interface.

May import sampling, run and all below them; not evaluation or train.
"""
