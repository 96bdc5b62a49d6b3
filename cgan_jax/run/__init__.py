"""A run's folder and its process: checkpoints, logs, curves, signals, other processes.

May import train_step, train_state and all below them.
"""
