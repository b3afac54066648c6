"""Measurements on published rounds and policies: context gain, attribution, probes, costs."""
