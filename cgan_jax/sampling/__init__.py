"""Images from a trained generator: what may be asked for, drawing, grids, files.

May import run, train_step and all below them.
"""
