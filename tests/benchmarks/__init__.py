"""Benchmarks: `python -m tests.benchmarks`. Figures of one machine at one time; compare ratios of one run."""
