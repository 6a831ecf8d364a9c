"""`python -m tfgad`: the command, where its script is not on the path."""

from tfgad.cli.main import main

if __name__ == "__main__":
    main()
