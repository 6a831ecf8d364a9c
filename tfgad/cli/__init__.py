"""The `tfgad` command, one module per group of commands."""
