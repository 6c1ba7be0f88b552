"""How the raw value of one logical type is read as another, and when it must not be. Pure."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from towpath.contract.schema import FixedSchema, Primitive
from towpath.contract.values import FROM_RAW, decimal_from


@dataclass(frozen=True, slots=True)
class Conversion:
    """The function that makes a value of a raw one, and its further arguments; None where the raw one is the value."""

    function: Callable[..., Any] | None = None
    arguments: tuple[int, ...] = ()

    def __call__(self, raw: Any) -> Any:
        """Return the value."""
        return raw if self.function is None else self.function(raw, *self.arguments)


_AS_IT_IS: Final = Conversion()


def conversion_of(reader: Primitive | FixedSchema, writer: Primitive | FixedSchema) -> Conversion | None:
    """Return how `reader` takes what `writer` wrote; None where it would be another value.

    A logical type that only one side has is taken from the reader, as Java does. Where both have one, the writer's
    decides what the value is, and the reader's must be able to hold it.
    """
    if reader.logical is None:
        return _AS_IT_IS
    meant = writer if writer.logical is not None else reader
    if meant.logical == "decimal":
        same = reader.logical == "decimal" and (reader.scale or 0) == (meant.scale or 0)
        if not same or (reader.precision or 0) < (meant.precision or 0):
            return None
        return Conversion(decimal_from, (meant.precision or 0, meant.scale or 0))
    if _family(reader.logical) != _family(meant.logical or ""):
        return None
    fixed_uuid = isinstance(reader, FixedSchema) and reader.logical == "uuid"
    return Conversion(FROM_RAW.get("uuid-fixed" if fixed_uuid else meant.logical or ""))


def _family(logical: str) -> str:
    """Return what two logical types share whose values are of one class and mean one thing."""
    return logical if logical.endswith("nanos") else logical.removesuffix("-millis").removesuffix("-micros")
