"""Scoring on more than one machine."""
