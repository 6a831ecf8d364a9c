"""Synthetic woven fabric with defects."""
