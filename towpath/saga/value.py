"""Values of the machine: frozen dataclasses with slots, made in two thirds of the time.

A decision makes about ten of them, which was a third of its cost: dataclasses fill the fields of a frozen class through
`object.__setattr__`, which looks each one up by its name. Here `__init__` writes to the slots themselves. All else is
what `dataclasses.dataclass(frozen=True, slots=True)` makes.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeVar, dataclass_transform

ClassT = TypeVar("ClassT", bound=type)


@dataclass_transform(frozen_default=True)
def value(cls: ClassT) -> ClassT:
    """Make a class a frozen dataclass with slots; its fields have no factories, and nothing runs after `__init__`."""
    made: Any = dataclass(frozen=True, slots=True)(cls)
    names = [field.name for field in fields(made)]
    slots: dict[str, Any] = {f"_set_{name}": vars(made)[name].__set__ for name in names}
    lines = [f"    _set_{name}(self, {name})" for name in names]
    exec("\n".join([f"def __init__(self, {', '.join(names)}):", *lines]), slots)  # noqa: S102 - names of fields only
    init: Callable[..., None] = slots["__init__"]
    # The signature that dataclasses gave it, defaults included.
    init.__defaults__, init.__annotations__ = made.__init__.__defaults__, made.__init__.__annotations__
    init.__qualname__ = made.__init__.__qualname__
    made.__init__ = init
    return made  # type: ignore[no-any-return]
