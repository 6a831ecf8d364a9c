"""The documents: links and paths resolve, commands are the real ones, code blocks can be read."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    path.relative_to(ROOT).as_posix()
    for path in sorted(
        [
            *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
            *ROOT.glob("saved_models/**/README.md"),
            *ROOT.glob("docs/**/*.md"),
        ]
    )
]
README_LINES = 120
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?\s*\)")
CODE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Paths in backticks, of files and folders that are in the repository.
PATH = re.compile(r"`((?:tfgad|tests|examples|docs|saved_models)/[\w./*-]*)`")
# Paths of what a reader makes by following the text.
MADE = {"saved_models/parts", "examples/<method>_mnist.py"}


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def prose_of(document: str) -> str:
    """Returns a document without its code blocks and code spans."""
    return re.sub(r"`[^`\n]*`", "", CODE.sub("", text_of(document)))


def anchors_of(document: str) -> set[str]:
    """Returns the anchors of a document's headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#{1,6} +(.+?) *$", CODE.sub("", text_of(document)), re.MULTILINE)
    headings = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    anchors = [re.sub(r"[^\w\s-]", "", heading.lower()).replace(" ", "-") for heading in headings]
    repeated = [anchor for anchor, count in Counter(anchors).items() if count > 1]
    assert not repeated, f"{document} has several headings {repeated}"
    return set(anchors)


def python_blocks(document: str) -> list[str]:
    return [code for language, code in CODE.findall(text_of(document)) if language == "python"]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_and_anchors_resolve(document):
    links = LINK.findall(CODE.sub("", text_of(document)))
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / document).parent / path if path else ROOT / document
        assert target.exists(), f"{document} links to {link}"
        assert ROOT in target.resolve().parents, f"{document} links out of the repository: {link}"
        if anchor:
            name = target.resolve().relative_to(ROOT).as_posix()
            assert anchor in anchors_of(name), f"{document} links to {link}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_paths_in_backticks_exist(document):
    for path in PATH.findall(text_of(document)):
        if path.rstrip("/") not in MADE:
            assert any(ROOT.glob(path.rstrip("/"))), f"{document} names {path}"


def test_the_readme_is_short():
    assert len(text_of("README.md").splitlines()) <= README_LINES


def test_every_page_can_be_reached():
    config = text_of("mkdocs.yml")
    for path in (ROOT / "docs").glob("**/*.md"):
        page = path.relative_to(ROOT / "docs").as_posix()
        assert re.search(rf"[ :-] {re.escape(page)}$", config, re.MULTILINE), page


def test_the_readme_has_the_test_command_of_the_ci():
    commands = [line.strip() for line in text_of("README.md").splitlines() if "pytest" in line]
    ci = text_of(".ci/run").splitlines()
    assert len(commands) == 1
    assert commands[0] in ci


def test_the_workflow_tests_every_python_that_setup_cfg_allows():
    oldest, newest = re.search(
        r"python_requires = >=3\.(\d+),<3\.(\d+)", text_of("setup.cfg")
    ).groups()
    versions = re.findall(
        r'"(3\.\d+)"', text_of(".github/workflows/tests.yml").partition("steps:")[0]
    )
    assert versions == [f"3.{minor}" for minor in range(int(oldest), int(newest))]


@pytest.mark.parametrize("document", [each for each in DOCUMENTS if python_blocks(each)])
def test_python_blocks_parse_and_their_imports_exist(document):
    for code in python_blocks(document):
        for module, name in imports(ast.parse(code)):
            assert has_name(module, name), f"{document} imports {name or module} of {module}"


def imports(tree: ast.Module) -> Iterator[tuple[str, str | None]]:
    """Yields the modules that code imports, with the name that it takes from each."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "tfgad":
            yield "tfgad", node.attr


def has_name(module: str, name: str | None) -> bool:
    """Returns whether a module exists and has a name; imports nothing, to be quick."""
    package, *_ = module.split(".")
    if package != "tfgad":
        return importlib.util.find_spec(package) is not None
    source = module_file(module)
    if source is None or name is None:
        return source is not None
    return name in names_of(source) or module_file(f"{module}.{name}") is not None


def module_file(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    return next((p for p in (path / "__init__.py", path.with_suffix(".py")) if p.is_file()), None)


def names_of(source: Path) -> set[str]:
    """Returns the names that a module defines, imports, or has as keys of a dict or in a list."""
    names = set()
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            names |= {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
            constants = [each for each in ast.walk(node) if isinstance(each, ast.Constant)]
            names |= {each.value for each in constants if isinstance(each.value, str)}
    return names


def words_to_avoid() -> list[str]:
    """Returns words of the glossary's right column that have no other use in documents."""
    return [
        r"judge[sd]?\b", r"\bjudging", r"\bmend(s|ed)?\b", r"what there is to say", r"\btogo\b",
        r"\bbegun\b", r"\brebuilt\b", r"as wholes", r"a little askew", r"what the method makes of",
        r"what is chosen", r"how unlikely",
    ]  # fmt: skip


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_use_the_words_of_the_glossary(document):
    text = prose_of(document)
    if document == "docs/glossary.md":
        text = text.partition("## Words to write")[0]
    for word in words_to_avoid():
        found = re.search(word, text, re.IGNORECASE)
        assert found is None, f"{document}: {found[0]!r}; docs/glossary.md says what to write"
