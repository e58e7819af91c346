"""Benchmarks: fixed work items, a plain PyTorch twin of each, and one table of both (scripts/bench.py)."""
