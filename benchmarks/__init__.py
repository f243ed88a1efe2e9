"""Benchmarks print figures and ratios, each beside a null arm in the same run; they never fail a run."""
