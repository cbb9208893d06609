"""Benchmarks: what their numbers mean, and that what is committed can be read."""
