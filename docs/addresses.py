"""Writes the address of the repository where a relative link does not do.

    python docs/addresses.py badges              # "Open in Colab" at the top of each notebook
    python docs/addresses.py readme --ref v0.1.0 # README.md, as the registry's page needs it

The address is `url` in `setup.cfg`. On the registry's page a relative link leads nowhere, so a
release is built after `readme`, with links into its own tag; in a checkout README.md stays as it
is.
"""

import argparse
import configparser
import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "examples" / "notebooks"
BRANCH = "main"
COLAB = "https://colab.research.google.com"
BADGE = re.compile(r"^\[!\[Open in Colab\]\(\S+\)\]\(\S+\)\n*", re.MULTILINE)
# `](target)` where target is a path, not an address or a place of the same page.
RELATIVE = re.compile(r"(?P<picture>!?)(?P<text>\[[^\]]*\])\((?P<target>(?!https?:|#)[^)\s]+)\)")


def main():
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("badges", "readme"))
    parser.add_argument("--ref", default=BRANCH, help="tag or branch that README.md links into")
    given = parser.parse_args()
    if given.what == "readme":
        path = ROOT / "README.md"
        path.write_text(absolute(path.read_text(encoding="utf-8"), given.ref), encoding="utf-8")
        return
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        cell = notebook["cells"][0]
        cell["source"] = with_badge("".join(cell["source"]), path.name).splitlines(keepends=True)
        text = json.dumps(notebook, indent=1, ensure_ascii=False)
        path.write_text(f"{text}\n", encoding="utf-8")


def address():
    """Returns the address of the repository."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    return settings["metadata"]["url"].rstrip("/")


def with_badge(text, name):
    """Returns the first cell of the notebook `name` with its badge below the title."""
    title, _, rest = BADGE.sub("", text).partition("\n")
    path = address().removeprefix("https://github.com/")
    link = f"{COLAB}/github/{path}/blob/{BRANCH}/examples/notebooks/{name}"
    badge = f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({link})"
    return f"{title}\n\n{badge}\n\n{rest.lstrip()}"


def absolute(text, ref):
    """Returns Markdown whose relative links name files of the repository, as absolute links."""

    def link(found):
        kind = "raw" if found["picture"] else "blob"
        return f"{found['picture']}{found['text']}({address()}/{kind}/{ref}/{found['target']})"

    return RELATIVE.sub(link, text)


if __name__ == "__main__":
    main()
