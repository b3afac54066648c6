"""A round as a whole: its configuration, recipe and screener, its figures, and its publication as a version."""
