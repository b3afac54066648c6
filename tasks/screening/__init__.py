"""Screening: roots, uncertain positions, candidates, verdicts and hard negatives (docs/method.md 2.1 to 2.6)."""
