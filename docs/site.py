"""A hook of MkDocs: files of the repository outside of `docs/` that its pages link to.

Markdown files listed in `PAGES` become pages of the site. Other linked files, such as pictures,
scripts and results, are copied to `files/`. Links are rewritten to match, so that the same text
works on the site and in a view of the repository.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(\]\()([^)\s:#]+)((?:#[^)\s]*)?\))")
# File in the repository -> page of the site.
PAGES = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "README.md": "index.md",
    "saved_models/README.md": "saved_models.md",
    **{
        path.relative_to(ROOT).as_posix(): f"saved_models/{path.parent.name}.md"
        for path in sorted(ROOT.glob("saved_models/*/README.md"))
    },
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages of `PAGES` and every file that a page links to."""
    for source, page in PAGES.items():
        if page != "index.md":
            text = (ROOT / source).read_text(encoding="utf-8")
            files.append(File.generated(config, page, content=_rewritten(text, source, page)))
    for page in list(files.documentation_pages()):
        source = f"docs/{page.src_uri}"
        text = (ROOT / source).read_text(encoding="utf-8") if (ROOT / source).is_file() else ""
        _add_linked(files, config, text, source)
    for source in PAGES:
        _add_linked(files, config, (ROOT / source).read_text(encoding="utf-8"), source)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrites the links of a page in `docs/`; those of `PAGES` are rewritten already."""
    if page.file.src_uri in PAGES.values() and page.file.src_uri != "index.md":
        return markdown
    return _rewritten(markdown, f"docs/{page.file.src_uri}", page.file.src_uri)


def _add_linked(files: Files, config: MkDocsConfig, text: str, source: str) -> None:
    for _, link, _ in LINK.findall(text):
        target = _target(link, source)
        uri = f"files/{target}"
        outside = not target.startswith("docs/") and target not in PAGES
        if outside and (ROOT / target).is_file() and files.get_file_from_path(uri) is None:
            files.append(File.generated(config, uri, abs_src_path=str(ROOT / target)))


def _rewritten(text: str, source: str, page: str) -> str:
    def rewrite(match: re.Match[str]) -> str:
        before, link, after = match.groups()
        target = _target(link, source)
        if target.startswith("docs/"):
            uri = target.removeprefix("docs/")
        else:
            uri = PAGES.get(target, f"files/{target}")
        return f"{before}{posixpath.relpath(uri, posixpath.dirname(page) or '.')}{after}"

    return LINK.sub(rewrite, text)


def _target(link: str, source: str) -> str:
    """Returns the path in the repository that a link of a file means."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
