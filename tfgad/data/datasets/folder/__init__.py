"""Data sets of the user's own image files in a folder."""
