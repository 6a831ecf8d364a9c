"""What methods stand on: the detector's contract, losses, the latent search."""
