"""The run folder, the training loop and its callbacks, training on several devices."""
