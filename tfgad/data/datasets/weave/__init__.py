"""Synthetic woven fabric with defects: yarns, defects, rendering, and the data set."""
