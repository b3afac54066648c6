"""Exports: a version in the format another program reads, with a record that says what it is and that audit checks."""
