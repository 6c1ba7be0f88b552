"""Which modules `saga check` is asked about, and what each defines. Importing them runs code of the project.

Rule of this file: whatever a module does when it is imported is told with file and line, and ends nothing else.
"""

import importlib
import pkgutil
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

from towpath.errors import ConfigurationError, NotFoundError
from towpath.saga import Definition, DefinitionError, Saga
from towpath.saga.check import Property, Report, Violation
from towpath.settings import Settings

_ENGINE = (str(Path(__file__).parents[1]), "<frozen importlib", importlib.__file__)


def module_names(names: Sequence[str], settings: Settings | None) -> list[str]:
    """Return the modules that `names` name: themselves, or those in a package that do not begin with `_`.

    A name is dotted, or a path from here. Raises NotFoundError, ConfigurationError.
    """
    root = settings.root if settings is not None else Path.cwd()
    _import_from(root)
    found: list[str] = []
    for name in names:
        dotted = _dotted(name, root)
        if not dotted and settings is not None:
            dotted = settings.project.sagas  # the folder of the project itself
        if not dotted:
            raise NotFoundError(f"there is no module {name!r}", next_step="name a package, a module or a file")
        found += _modules_of(dotted)
    return list(dict.fromkeys(found))


def load(name: str) -> Definition | Report:
    """Return the definition in a module, or a report that it breaks a rule of the language."""
    try:
        module = _import(name)
        found = getattr(module, "saga", None)
        if not isinstance(found, Saga):
            raise ConfigurationError(f"{name}: it has no Saga called 'saga'", next_step="define saga = Saga(...) there")
        definition = found.definition
        for attribute, other in _others(module, definition):
            raise ConfigurationError(
                f"{name}: saga {other} is called {attribute!r} there, and only what is called 'saga' is proved and run",
                next_step="give it a module of its own, and call it saga",
            )
        return definition
    except DefinitionError as error:
        words = f"{error.cause}; {error.next_step}"
        violation = Violation(name.rpartition(".")[2], 0, Property.DEFINITION, "", words, where=_place(error))
        return Report(violation.saga, 0, violations=(violation,))


def _import_from(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _dotted(name: str, root: Path) -> str:
    """Return the dotted name of a path from here; empty for the root itself. What is no path is dotted already."""
    path = Path(name)
    if not (path.suffix == ".py" or "/" in name or path.is_dir()):
        return name
    whole = path.resolve()
    whole = whole.with_suffix("") if whole.suffix == ".py" else whole
    if not whole.is_relative_to(root.resolve()):
        if not path.exists():
            raise NotFoundError(f"there is no {name}", next_step="name a package, a module or a file")
        _import_from(whole.parent)
        return whole.name
    return ".".join(whole.relative_to(root.resolve()).parts)


def _modules_of(dotted: str) -> list[str]:
    try:
        package = _import(dotted)
    except DefinitionError:
        return [dotted]  # it is told as a violation
    if not hasattr(package, "__path__"):
        return [dotted]
    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    found = [f"{dotted}.{name}" for name in names if not name.startswith("_")]
    if not found:
        raise NotFoundError(
            f"{dotted}: it has no module, so there is no saga to check",
            next_step="towpath add saga NAME --asks SERVICE",
        )
    return found


def _import(name: str) -> ModuleType:
    """Import a module. Raises DefinitionError, or an error for people where it cannot be imported otherwise."""
    try:
        return importlib.import_module(name)
    except DefinitionError:
        raise
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{name}.".startswith(f"{missing}."):
            raise NotFoundError(f"there is no module {name}", next_step="name a package, a module or a file") from error
        place = _place(error)
        raise ConfigurationError(
            f"{name} cannot be imported: {type(error).__name__}: {error}{f', at {place}' if place else ''}",
            next_step="fix what it does when it is imported",
        ) from error


def _place(error: BaseException) -> str:
    """Return file and line of the innermost frame outside the engine; empty where there is none."""
    where = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_ENGINE)]
    return f"{where[-1].filename}:{where[-1].lineno}" if where else ""


def _others(module: ModuleType, found: Definition) -> Iterator[tuple[str, str]]:
    """Yield sagas that the module defines beside its own, by their names there; sub-sagas are proved with theirs."""
    children = {step.child.name for step in found.steps if step.child is not None}
    for attribute, other in vars(module).items():
        if not isinstance(other, Saga) or other is module.__dict__["saga"] or other.name in children:
            continue
        begun = [step.where.rpartition(":")[0] for step in other.definition.steps if step.where]
        if begun and Path(begun[0]) == Path(str(module.__file__)):
            yield attribute, other.name
