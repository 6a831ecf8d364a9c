"""The `tfgad` command, one module a group of commands."""
