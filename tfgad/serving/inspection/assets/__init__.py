"""Style sheet, scripts and templates of the inspection page."""

from importlib import resources


def read(name: str) -> str:
    """Returns the text of a file of this package."""
    return resources.files(__name__).joinpath(name).read_text("utf-8")
