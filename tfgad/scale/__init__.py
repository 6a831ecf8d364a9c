"""Training on several devices or machines, and judging more images than one loop can."""
