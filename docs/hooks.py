"""What the site has beside docs/: README as its first page, data cards, experiments, CONTRIBUTING, CHANGELOG, API.

Pages are written for the code host: their links are relative to the file that they stand in. In the site those to other
pages are made relative to the page, and those to any other file of the repository go to the repository's address.
"""

from __future__ import annotations

import os
import posixpath
import re
import tomllib
from pathlib import Path

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "brainlit"
LINK = re.compile(r"(!?\[[^\[\]]*\])\(([^()\s#]+)(#[^()\s]*)?\)")
FENCE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
DOCTEST = re.compile(r"^(>>> )", re.MULTILINE)
URL_NAMES = ("repository", "source", "sourcecode", "homepage")


def brought_in() -> dict[str, str]:
    """Path in the repository -> path in the site, of pages that do not lie in docs/."""
    beside = [*sorted((ROOT / "data").glob("*.md")), *(ROOT / "experiments").glob("*.md")]
    beside += [ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
    return {"README.md": "index.md", **{(path := file.relative_to(ROOT).as_posix()): path for file in beside}}


def api_pages() -> dict[str, str]:
    """Path in the site -> Markdown, one for each package that says by `__all__` what is public."""
    inits = (path for path in sorted(PACKAGE.rglob("__init__.py")) if "\n__all__ = [" in path.read_text("utf-8"))
    names = (".".join(path.parent.relative_to(PACKAGE).parts) for path in inits)
    return {f"api/{name}.md": f"# brainlit.{name}\n\n::: brainlit.{name}\n" for name in names}


def repository() -> str | None:
    """Address of the repository: of pyproject's project URLs, else of the machine that builds a public site."""
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"].get("urls", {})
    named = {re.sub(r"[^a-z]", "", name.lower()): url for name, url in urls.items()}
    known = [named[name].rstrip("/") for name in URL_NAMES if name in named]
    server, path = (os.environ.get(f"GITHUB_{name}") for name in ("SERVER_URL", "REPOSITORY"))
    return known[0] if known else f"{server}/{path}" if server and path else None


class Examples(griffe.Extension):
    """Doctests that end a docstring without a heading become its examples, or Markdown would take >>> for quotes."""

    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:
        """Called for everything that is read."""
        if obj.docstring and ">>> " in obj.docstring.value and "\nExamples\n---" not in obj.docstring.value:
            obj.docstring.value = DOCTEST.sub(r"\nExamples\n--------\n\1", obj.docstring.value, count=1)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Headings get the anchors that the code host gives them; the header links to the repository."""
    config.mdx_configs.setdefault("toc", {})["slugify"] = slugify(case="lower")
    config.repo_url = repository()
    config.edit_uri = ""
    config.site_url = os.environ.get("SITE_URL", "").rstrip("/") + "/" if os.environ.get("SITE_URL") else ""
    config.watch += [str(ROOT / path) for path in brought_in()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside docs/, and those of the API."""
    for path, uri in brought_in().items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
    for uri, text in api_pages().items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links of a page, except in blocks of code."""
    uri = page.file.src_uri
    sites = brought_in()
    path = {uri: path for path, uri in sites.items()}.get(uri, f"docs/{uri}")

    def turned(match: re.Match[str]) -> str:
        text, target, anchor = match.groups(default="")
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        wanted = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        site = sites.get(wanted, wanted.removeprefix("docs/"))
        if (wanted in sites or wanted.startswith("docs/")) and files.get_file_from_path(site):
            return f"{text}({posixpath.relpath(site, posixpath.dirname(uri) or '.')}{anchor})"
        if not (ROOT / wanted).exists():
            return match[0]  # mkdocs complains
        if config.repo_url is None:
            return text[1:-1]
        return f"{text}({config.repo_url}/{'tree' if (ROOT / wanted).is_dir() else 'blob'}/main/{wanted}{anchor})"

    parts = FENCE.split(markdown)
    return "".join(part if k % 2 else LINK.sub(turned, part) for k, part in enumerate(parts))
