"""`python -m tfgad.cli` runs the command."""

from tfgad.cli.main import main

main()
