"""Metrics, trivial detectors and the report."""
