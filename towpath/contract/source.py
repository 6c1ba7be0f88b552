"""Collects the lines of a function that is compiled at run time. Pure."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from types import CodeType
from typing import Any


class Source:
    """Lines of Python, indented as they are nested, and the objects that they name.

    Only names that are made here, and numbers, get into the text: what a schema's file says reaches compiled code as an
    object with a number for a name, so that no file can say what runs.
    """

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._depth = 0
        self._names: dict[int, str] = {}
        self._counter = 0
        self.objects: dict[str, Any] = {}

    def line(self, text: str) -> None:
        """Add one line."""
        self._lines.append("    " * self._depth + text)

    @contextmanager
    def block(self, head: str) -> Iterator[None]:
        """Add a line that ends in a colon, and indent what is added inside the `with`."""
        self.line(f"{head}:")
        self._depth += 1
        yield
        self._depth -= 1

    def variable(self) -> str:
        """Return a name that is not used yet."""
        self._counter += 1
        return f"v{self._counter}"

    def name(self, found: Any) -> str:
        """Return the name under which the compiled code finds this very object."""
        known = self._names.get(id(found))
        if known is None:
            known = self._names[id(found)] = f"k{len(self._names)}"
            self.objects[known] = found
        return known

    def compiled(self) -> Mapping[str, Any]:
        """Return what the lines define, by name."""
        names = dict(self.objects)
        exec(_code("\n".join(self._lines)), names)  # noqa: S102 - see above
        return names


@lru_cache(maxsize=1024)
def _code(text: str) -> CodeType:
    """Compile a text, once: records of one shape have one, and so has a record in every codec of a process."""
    return compile(text, "<towpath.contract>", "exec")
