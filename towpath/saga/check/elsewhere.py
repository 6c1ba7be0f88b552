"""The second call of a function of a definition, in a process that shares nothing with this one but the code.

A function that depends on its arguments alone gives the same there: under another hash seed (which orders sets), at
another date, in another zone, locale and environment. This room starts no process: whoever checks hands one in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from towpath.saga.check.abstract import Role

# Calls of one function that are repeated elsewhere; they are spread over all the data that it was tried on.
TRIED_MAX = 24


@dataclass(frozen=True, slots=True)
class Tried:
    """A call that was made here: which function of a step, with what, and what it returned."""

    step: str
    role: Role
    given: tuple[object, ...]
    returned: object


# Of the saga of that name and version, say of each call what is wrong with it elsewhere: nothing where it is empty,
# None where it could not be repeated there (its arguments are no data).
Elsewhere: TypeAlias = Callable[[str, int, Sequence[Tried]], Sequence[str | None]]


def spread(tried: Sequence[Tried]) -> list[Tried]:
    """Return at most `TRIED_MAX` of the calls, from first to last."""
    if len(tried) <= TRIED_MAX:
        return list(tried)
    return [tried[number * len(tried) // TRIED_MAX] for number in range(TRIED_MAX)]
