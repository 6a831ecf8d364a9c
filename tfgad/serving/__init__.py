"""A server of exported models on one machine, and its inspection page."""
