"""What follows from a project's files, written after one of them changed: record classes, topics, the compose file."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from towpath.errors import ProgrammerError
from towpath.settings import Settings, load_settings

_OURS: Final = "# Written by `towpath compose`"


def forget_project(settings: Settings) -> None:
    """Forget the project's modules, so that they are imported as their files are now."""
    folders = {settings.root / name for name in ("sagas", "pipelines", "schemas")}
    folders |= {
        settings.root.joinpath(*name.split(".")[:1]) for name in (settings.project.sagas, settings.project.records)
    }
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and any(folder in Path(file).parents for folder in folders):
            del sys.modules[name]
    importlib.invalidate_caches()


def write_what_follows(settings: Settings, wrote: Callable[[Path], None] | None = None) -> tuple[Path, ...]:
    """Write what is generated anew; return the files that changed, relative to the project.

    `wrote` is called with each that changed, also where the next cannot be written: that takes the project's import.
    docker-compose.yml is left alone where a person wrote it. Raises what `towpath contracts generate` does.
    """
    from towpath.contract.files import load_contracts, schema_sets
    from towpath.contract.write import write_records
    from towpath.derived_topics import derived_text, write_derived
    from towpath.project import worker_names
    from towpath.stack.compose import COMPOSE_FILE, render_compose
    from towpath.stack.lock import load_lock

    written: list[Path] = []

    def note(path: Path) -> None:
        written.append(path.relative_to(settings.root))
        if wrote is not None:
            wrote(written[-1])

    contracts = load_contracts(schema_sets(settings))
    for one in write_records(contracts):
        note(one)
    forget_project(settings)
    derived = write_derived(settings, derived_text(settings, contracts))
    if derived is not None:
        note(derived)
    path = settings.root / COMPOSE_FILE
    known = path.read_text(encoding="utf-8") if path.is_file() else ""
    if not known or known.startswith(_OURS):
        try:
            # What is written into the project must not depend on the shell that wrote it.
            plain = load_settings(settings.root, environment=False)
            text = render_compose(plain, load_lock(), worker_names(plain))
        except ProgrammerError:
            text = known  # without the parts' packages nothing is known of their images: towpath compose says so
        if text != known:
            path.write_text(text, encoding="utf-8")
            note(path)
    return tuple(written)
