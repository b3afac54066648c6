"""Benchmarks: each measurement beside its alternative in the same run (docs/performance.md)."""
