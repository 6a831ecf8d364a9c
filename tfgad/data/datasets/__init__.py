"""Loaders of data sets: image folders, AITEX, MNIST and similar sets, synthetic woven fabric."""
