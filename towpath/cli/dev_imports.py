"""Which workers a changed file concerns: those whose module imports it, directly or through others. Pure but for files.

Read from the text of the files, for an import that fails must not hide whom it concerns.
"""

import ast
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

FILES_MAX = 10_000


class Imports:
    """What each module of a project imports of the project itself, as its files were when they were read."""

    def __init__(self, root: Path, folders: Iterable[str]) -> None:
        """Read every module in `folders` of `root`; one that is no Python at this moment imports nothing."""
        self._root = root
        self._modules: dict[str, Path] = {}
        self._direct: dict[str, frozenset[str]] = {}
        self.beside: set[str] = set()
        """Files and folders of `root` that are imported and lie in none of `folders`."""
        read = {"towpath"}  # no part of the project, also where it lies in its folder
        waiting = set(folders)
        while waiting:
            self._add(name := waiting.pop())
            read.add(name)
            imported = {one.partition(".")[0] for names in self._direct.values() for one in names}
            found = {place for one in imported for place in (one, f"{one}.py") if (root / place).exists()} - read
            self.beside |= found - waiting
            waiting |= found

    def _add(self, place: str) -> None:
        path = self._root / place
        for one in [path] if path.is_file() else path.rglob("*.py"):
            parts = one.relative_to(self._root).with_suffix("").parts
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            self._modules[name] = one
            self._direct[name] = _names(one, name if is_package else name.rpartition(".")[0])

    def files_of(self, module: str) -> set[Path]:
        """Return the files that importing `module` runs."""
        found: set[str] = set()
        waiting = [module]
        while waiting:
            name = waiting.pop()
            # Importing a.b.c runs a and a.b first.
            parts = name.split(".")
            for place in range(1, len(parts) + 1):
                one = ".".join(parts[:place])
                if one in self._modules and one not in found:
                    found.add(one)
                    waiting += self._direct[one]
        return {self._modules[name] for name in found}

    def concerned(self, workers: Mapping[str, Iterable[str]], changed: Iterable[Path]) -> set[str]:
        """Return which of `workers`, each with the modules that it is made of, run one of the changed files.

        A changed folder stands for all that lies in it.
        """
        places = set(changed)

        def runs(module: str) -> bool:
            return any(path in places or not places.isdisjoint(path.parents) for path in self.files_of(module))

        return {name for name, modules in workers.items() if any(map(runs, modules))}


def _names(path: Path, package: str) -> frozenset[str]:
    try:
        seen = path.stat()
    except OSError:
        return frozenset()
    return _read(path, package, seen.st_mtime_ns, seen.st_size)


@lru_cache(FILES_MAX)
def _read(path: Path, package: str, _mtime_nanoseconds: int, _size_bytes: int) -> frozenset[str]:
    """Return what a module of `package` imports; each file is read once for each save of it."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, OSError):
        return frozenset()
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # Each point past the first is one package further up.
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return frozenset(found)
