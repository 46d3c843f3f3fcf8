"""Benchmarks. One file each, with `measure(args) -> list[Metric]`; the stem is the name."""
