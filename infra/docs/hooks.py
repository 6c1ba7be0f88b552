"""What MkDocs runs while it builds: adds the pages that are made from the code."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from mkdocs.structure.files import File, Files

from infra.docs.reference import PAGES, llms, pages_of

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig


def on_files(files: Files, config: "MkDocsConfig") -> Files:
    """Add the reference pages to those that lie in `docs/`."""
    for path, make in PAGES.items():
        files.append(File.generated(config, path, content=make()))
    files.append(File.generated(config, "llms.txt", content=llms(pages_of(config.nav or []))))
    return files
