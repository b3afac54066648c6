"""Samples out of verified contexts: bundles, packing, assembly (docs/method.md 2.7)."""
