"""Where the verbs of `saga` find definitions: in the project, and among those that were recorded."""

from pathlib import Path
from typing import Any

from towpath.errors import NotFoundError
from towpath.settings import Settings

HISTORIES_FOLDER = "tests/histories"
"""Where a project keeps its golden histories: <saga>/v<version>/*.jsonl, and beside them definition.json."""


def recorded_path(settings: Settings, histories: str, name: str, version: int) -> Path:
    """Return where the definition of one version of a saga is recorded."""
    return settings.root / histories / name / f"v{version}" / "definition.json"


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
