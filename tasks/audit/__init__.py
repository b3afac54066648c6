"""The audit of a version: every digest of its chain and every claim of its rows, recomputed."""
