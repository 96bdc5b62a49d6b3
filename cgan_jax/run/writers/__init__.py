"""Trackers of runs: one file = one class Writer(folder, name) with the calls of clu.metric_writers.MetricWriter."""
