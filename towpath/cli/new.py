"""`towpath new`: a project that runs at once."""

import re
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from towpath.cli import output
from towpath.errors import ConfigurationError, RefusedError
from towpath.settings import load_settings

_NAME = re.compile(r"[a-z][a-z0-9_-]*\Z")
_NAME_CHARS_MAX = 40  # it is part of the names of replication slots, of which PostgreSQL keeps 63


def register(app: typer.Typer) -> None:
    """Add the verb to `app`."""
    app.command("new")(new)


def new(
    folder: Annotated[Path, typer.Argument(help="The project's folder; its last part is the project's name.")],
    as_json: Annotated[bool, typer.Option("--json", help="Name the files as JSON.")] = False,
) -> None:
    """Make a project: one saga, two services, a view, their contracts and tests, compose file and CI file."""
    from towpath.cli.follow import write_what_follows
    from towpath.scaffold.plan import project_files
    from towpath.scaffold.writing import write_missing

    root = folder.resolve()
    name = root.name
    if not _NAME.match(name):
        raise ConfigurationError(
            f"{name!r} is no name of a project: use lower case letters, digits, _ and -, a letter first",
            next_step="towpath new myshop",
        )
    if len(name) > _NAME_CHARS_MAX:
        raise ConfigurationError(
            f"{name!r} is no name of a project: it has more than {_NAME_CHARS_MAX} letters",
            next_step="towpath new myshop",
        )
    if root.exists() and not root.is_dir():
        raise RefusedError(f"{folder} is a file", kept="it", next_step="name a folder that is not there yet")
    if root.exists() and any(one.name != ".git" for one in root.iterdir()):
        raise RefusedError(
            f"{folder} is not empty", kept="what it holds", next_step="name a folder that is not there yet"
        )
    written = list(write_missing(root, project_files(name, metadata.version("towpath"))))
    written += write_what_follows(load_settings(root, environment=False))
    if as_json:
        output.emit_json({"folder": str(root), "written": [path.as_posix() for path in written]})
        return
    output.results.print(f"{folder}: {len(written)} files", highlight=False, soft_wrap=True)
    output.note(f"next: cd {folder}, then towpath dev; README.md there says the rest")
