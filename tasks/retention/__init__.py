"""Retention: what a home no longer needs, removed with a tombstone for each thing."""
