"""What MkDocs runs while it builds: adds the pages that are made from the code."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

from infra.docs.reference import PAGES, llms, pages_of

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig

ROOT = Path(__file__).resolve().parents[2]


def on_files(files: Files, config: "MkDocsConfig") -> Files:
    """Add the reference pages to those that lie in `docs/`."""
    for path, make in PAGES.items():
        files.append(File.generated(config, path, content=make()))
    files.append(File.generated(config, "llms.txt", content=llms(pages_of(config.nav or []))))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Show links to files of the repository, which the site does not have, as their text alone."""

    def text_of(link: re.Match[str]) -> str:
        text, path = link.groups()
        if not (ROOT / "docs" / path).exists():
            raise PluginError(f"a link to a file that does not exist: {path}")
        return text

    return re.sub(r"\[([^\]]+)\]\((\.\./[^)#]+)\)", text_of, markdown)
