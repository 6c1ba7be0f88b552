"""Brings in what the project registers in `towpath.toml`: its sagas, services, views and demo.

The engine imports no project by name; this is the one place where import paths become objects.
"""

import importlib
import pkgutil
import sys
import traceback
from types import ModuleType
from typing import Any, TypeVar

from towpath.errors import ConfigurationError
from towpath.participant.service import Service
from towpath.saga import Definition, Saga
from towpath.settings import Settings
from towpath.view import View

Wanted = TypeVar("Wanted")
SAGAS_VIEW_WORKER = "view:sagas"


def load_sagas(settings: Settings) -> dict[str, dict[int, Definition]]:
    """Return the project's saga definitions by name and version.

    Each module of the package `[project] sagas` defines one, as `saga`. Raises ConfigurationError for a module that
    cannot be imported or has none, and for two definitions of the same name and version.
    """
    found: dict[str, dict[int, Definition]] = {}
    package = _import(settings, settings.project.sagas)
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if module.name.rsplit(".", 1)[-1].startswith("_"):
            continue
        saga: Saga[Any] = _attribute(_import(settings, module.name), "saga", Saga)
        definition = saga.definition
        versions = found.setdefault(definition.name, {})
        if definition.version in versions:
            raise ConfigurationError(
                f"{module.name}: saga {definition.name} version {definition.version} is defined twice",
                next_step="raise the version of the newer one",
            )
        versions[definition.version] = definition
    return found


def load_services(settings: Settings) -> dict[str, Service]:
    """Return the project's services by name. Raises ConfigurationError as `load_sagas` does."""
    services = [load_object(settings, path, Service) for path in settings.project.services]
    return {service.name: service for service in services}


def load_views(settings: Settings) -> dict[str, dict[int, View[Any]]]:
    """Return the project's views by name and version, both in rising order. Raises ConfigurationError as `load_sagas`.

    Several versions of a view are several paths in `[project] views`: each is folded, and one of them is published.
    """
    found: dict[str, dict[int, View[Any]]] = {}
    for path in settings.project.views:
        view: View[Any] = load_object(settings, path, View)
        versions = found.setdefault(view.name, {})
        if view.version in versions:
            raise ConfigurationError(
                f"{path}: view {view.name} version {view.version} is declared twice",
                next_step="raise the version of the newer one",
            )
        changes = None if view.changes is None else view.changes.topic
        if any(one.changes is not None and one.changes.topic == changes for one in versions.values()):
            raise ConfigurationError(
                f"{path}: view {view.name} version {view.version} tells its changes to {changes}, and so does another "
                "version: who reads them would have each row from both",
                next_step="give each version a topic of its own",
            )
        versions[view.version] = view
    return {name: dict(sorted(versions.items())) for name, versions in found.items()}


def view_workers(settings: Settings) -> dict[str, View[Any]]:
    """Return the project's views by the name of the worker that folds them, and what is folded beside the project's.

    The oldest version that the project has is `view:NAME`, and each newer one `view:NAME@VERSION`: a version that is
    added changes nothing for the workers that run.
    """
    found = {}
    for name, versions in load_views(settings).items():
        for number, view in versions.items():
            found[f"view:{name}" if view is next(iter(versions.values())) else f"view:{name}@{number}"] = view
    return found


def load_object(settings: Settings, path: str, kind: type[Wanted]) -> Wanted:
    """Return the object at `path` (`package.module:attribute`), which must be a `kind`."""
    module, _, attribute = path.partition(":")
    if not attribute:
        raise ConfigurationError(
            f"towpath.toml: {path!r} is not an import path", next_step="write it as package.module:attribute"
        )
    return _attribute(_import(settings, module), attribute, kind)


def _import(settings: Settings, name: str) -> ModuleType:
    root = str(settings.root)
    if root not in sys.path:
        sys.path.insert(0, root)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _failed(name, error) from error
        raise ConfigurationError(
            f"towpath.toml names {name}, and there is no such module in {root}",
            next_step="create it, or fix the name in towpath.toml",
        ) from error
    except ConfigurationError:
        raise
    except Exception as error:
        raise _failed(name, error) from error


def _failed(name: str, error: Exception) -> ConfigurationError:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    said = str(error)
    if isinstance(error, SyntaxError) and error.filename:  # its last frame is Python's own importer
        said, where = error.msg, f" ({error.filename}:{error.lineno})"
    return ConfigurationError(f"{name} cannot be imported: {type(error).__name__}: {said}{where}")


def _attribute(module: ModuleType, name: str, kind: type[Wanted]) -> Wanted:
    value = getattr(module, name, None)
    if not isinstance(value, kind):
        raise ConfigurationError(
            f"{module.__name__}: it has no {kind.__name__} called {name!r}",
            next_step=f"define {name} = {kind.__name__}(...) there, or fix the path in towpath.toml",
        )
    return value


def worker_names(settings: Settings) -> tuple[str, ...]:
    """Return what `towpath run` can run in this project: one name for each service, saga and version of a view.

    The engine's own view of all saga instances is `view:sagas`, where there is a saga. Raises ConfigurationError as
    `load_sagas` does.
    """
    sagas = load_sagas(settings)
    return (
        *(f"service:{name}" for name in load_services(settings)),
        *(f"saga:{name}" for name in sagas),
        *view_workers(settings),
        *((SAGAS_VIEW_WORKER,) if sagas else ()),
    )
