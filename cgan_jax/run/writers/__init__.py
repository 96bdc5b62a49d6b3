"""Trackers of runs: one file = one class Writer(folder, name), with the calls of clu.metric_writers.MetricWriter.

The name is unique to the folder of the run, so that a resumed run finds its entry.
"""
