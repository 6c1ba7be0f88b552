"""Which workers a changed file concerns: those whose module imports it, directly or through others. Pure but for files.

Read from the text of the files, for an import that fails must not hide whom it concerns.
"""

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path


class Imports:
    """What each module of a project imports of the project itself, as its files were when they were read."""

    def __init__(self, root: Path, folders: Iterable[str]) -> None:
        """Read every module in `folders` of `root`; one that is no Python at this moment imports nothing."""
        self._root = root
        self._modules: dict[str, Path] = {}
        for folder in folders:
            for path in (root / folder).rglob("*.py"):
                parts = path.relative_to(root).with_suffix("").parts
                self._modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
        self._direct = {name: self._read(path) for name, path in self._modules.items()}

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
        """Return which of `workers`, each with the modules that it is made of, run one of the changed files."""
        files = set(changed)
        return {name for name, modules in workers.items() if any(files & self.files_of(module) for module in modules)}

    def _read(self, path: Path) -> set[str]:
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError, OSError):
            return set()
        found: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        return found
