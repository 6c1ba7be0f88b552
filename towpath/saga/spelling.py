"""Says of a call that cannot be bound what is misspelt, missing or too much, as of any other mistake in a definition.

Python's own TypeError says it too, and looks like a fault of the library.
"""

import inspect
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from functools import wraps
from typing import Any, TypeVar

from towpath.saga.errors import DefinitionError

ClassT = TypeVar("ClassT", bound=type)


def spelt(cls: ClassT) -> ClassT:
    """Have the constructor and the public methods of `cls` raise DefinitionError where a call does not fit them."""
    for name, function in list(vars(cls).items()):
        if inspect.isfunction(function) and (name == "__init__" or not name.startswith("_")):
            shown = cls.__name__ if name == "__init__" else name
            setattr(cls, name, _judged(shown, function))
    return cls


def _judged(shown: str, function: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(function)
    words = [
        name for name, one in signature.parameters.items() if one.kind in (one.KEYWORD_ONLY, one.POSITIONAL_OR_KEYWORD)
    ][1:]

    @wraps(function)
    def called(*arguments: Any, **said: Any) -> Any:
        try:
            signature.bind(*arguments, **said)
        except TypeError as error:
            raise DefinitionError(
                f"{shown}(...): {error}", next_step=word_meant(said.keys() - set(words), words)
            ) from None
        return function(*arguments, **said)

    return called


def word_meant(unknown: Iterable[str], words: Sequence[str]) -> str:
    """Return which of the words that are known was probably meant by one that is not; all of them if none is near."""
    for name in sorted(unknown):
        if near := get_close_matches(name, words, n=1):
            return f"did you mean {near[0]}=?"
    return f"it takes {', '.join(f'{word}=' for word in words)}"
