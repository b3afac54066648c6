"""Samples out of whole documents: recipes that ask no policy (docs/method.md 3)."""
