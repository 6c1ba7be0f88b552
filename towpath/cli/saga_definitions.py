"""Where the verbs of `saga` find definitions: in the project, and among those that were recorded."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from towpath.cli.files import read_text
from towpath.errors import ConfigurationError, NotFoundError
from towpath.settings import Settings

HISTORIES_FOLDER = "tests/histories"
"""Where a project keeps its golden histories: <saga>/v<version>/*.jsonl, and beside them definition.json."""


def recorded_path(settings: Settings, histories: str, name: str, version: int) -> Path:
    """Return where the definition of one version of a saga is recorded."""
    return settings.root / histories / name / f"v{version}" / "definition.json"


def read_recorded(path: Path) -> dict[str, Any]:
    """Return a definition as it was recorded. Raises ConfigurationError where the file holds none."""
    try:
        outline = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _not_recorded(path, str(error)) from error
    if not isinstance(outline, dict) or not isinstance(outline.get("steps"), list):
        raise _not_recorded(path, "it has no steps")
    return outline


def _not_recorded(path: Path, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"{path} is no recorded definition: {why}",
        next_step="take the file as `towpath saga record` wrote it from your version control",
    )


def find_definition(settings: Settings, name: str, version: int | None = None) -> Any:
    """Return a definition of the project, the newest by default. Raises NotFoundError."""
    from towpath.project import load_sagas

    sagas = load_sagas(settings)
    versions = sagas.get(name, {})
    found = versions.get(version or max(versions, default=0))
    if found is None:
        known = ", ".join(f"{saga}@{number}" for saga, numbers in sagas.items() for number in numbers)
        raise NotFoundError(f"no saga {name}{f'@{version}' if version else ''}", next_step=f"one of: {known}")
    return found


def runnable_definition(settings: Settings, source: str) -> Any:
    """Return a definition with its functions: of the project (NAME or NAME@VERSION), of a file, or of GITREF:FILE.

    A file, of now or of a git ref, is run among the project's other files as they are now. Raises NotFoundError,
    ConfigurationError.
    """
    from towpath.saga import Saga

    if not source.endswith(".py"):
        name, _, version = source.partition("@")
        return find_definition(settings, name, int(version) if version.isdecimal() else None)
    ref, colon, path = source.rpartition(":")
    if colon:
        text = _text_at(settings.root, ref, path)
    else:
        text = read_text(settings.root / source, next_step="name a file with a saga")
    if str(settings.root) not in sys.path:
        sys.path.insert(0, str(settings.root))
    names: dict[str, Any] = {"__name__": f"towpath_shadow_{Path(path).stem}", "__file__": source}
    try:
        exec(compile(text, source, "exec"), names)  # noqa: S102 - a saga's file is code that the person names
    except Exception as error:
        raise ConfigurationError(f"{source} cannot be run: {error!r}", next_step="fix the file") from error
    found = names.get("saga")
    if not isinstance(found, Saga):
        raise ConfigurationError(f"{source} has no Saga called 'saga'", next_step="name a file with a saga")
    return found.definition


def _text_at(root: Path, ref: str, path: str) -> str:
    ran = subprocess.run(
        ["git", "show", f"{ref}:./{path}"], cwd=root, capture_output=True, text=True, timeout=60, check=False
    )
    if ran.returncode != 0:
        raise NotFoundError(f"git show {ref}:{path}: {ran.stderr.strip()}", next_step="name a ref and a file in it")
    return ran.stdout
