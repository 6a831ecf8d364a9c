"""Functional networks: tensors in, keras.Model out; no loss, no training."""
