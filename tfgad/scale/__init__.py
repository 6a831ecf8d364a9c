"""Scoring on more than one machine, with what the extra `scale` brings."""
