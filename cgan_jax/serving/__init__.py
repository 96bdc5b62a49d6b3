"""A model on the web: what draws, a queue before it, a JSON interface, and a page of three files.

This room may import sampling, run, and all below; its files connections.py and page.py know no model.
"""
