"""Benchmarks: ``python -m perf.bench`` compares with other receivers in one run."""
