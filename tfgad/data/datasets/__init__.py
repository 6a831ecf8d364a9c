"""Data sets: image folders, AITEX, MNIST and its kin, synthetic weaves."""
