"""Fitted models as SavedModel and LiteRT."""
