"""Why Towpath is stricter than Java on purpose: what two schemas really are at the place of a finding.

Looked up in the schemas themselves, not in the words of the finding, and by none of the code that found it: a finding
that no reason stands behind is a disagreement.
"""

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Final

from towpath.contract.schema import (
    Array,
    AvroType,
    EnumSchema,
    FixedSchema,
    Map,
    Primitive,
    RecordSchema,
    Reference,
    Schemas,
    Union,
)

_STEP: Final = re.compile(r"\.(\w+)|\[\]|\{\}")
_ROUNDED: Final = frozenset({("int", "float"), ("long", "float"), ("long", "double")})
Pair = tuple[AvroType, AvroType]


class Reason(StrEnum):
    """Why a reader is refused that Java lets pass."""

    LOGICAL = "Java takes one logical type for another, or one decimal for another, without a word"
    ROUNDED = "Java rounds whole numbers that the reader's type does not hold"
    TEXT = "bytes need not be a text: Java takes them for one"
    NAME = "Java takes a record for another of any name, where it is not in a union"
    SPACE = "Java's judge of schemas, unlike its reader, takes an enum or fixed of a union for one of another namespace"
    CIRCLE = "an alias leads on to a field that has an alias as well: Java applies them twice"


def reasons(place: str, root: str, *, reader: Schemas, writer: Schemas) -> frozenset[Reason]:
    """Return every reason that holds at `place`, the path of a finding below the record `root`."""
    found: set[Reason] = set()
    pairs: list[Pair] = [(Reference(root), Reference(root))]
    for step in _STEP.finditer(place):
        pairs = [inner for pair in _branches(pairs) for inner in _inside(step, pair, reader, writer, found)]
    for one, other in _branches(pairs):
        found |= set(_between(one, other, reader, writer))
    return frozenset(found)


def _branches(pairs: list[Pair]) -> Iterator[Pair]:
    """Yield each type that a union may stand for with each of the other's."""
    for one, other in pairs:
        for read in one.branches if isinstance(one, Union) else (one,):
            for written in other.branches if isinstance(other, Union) else (other,):
                yield read, written


def _inside(step: "re.Match[str]", pair: Pair, reader: Schemas, writer: Schemas, found: set[Reason]) -> Iterator[Pair]:
    match pair:
        case Array(items=one), Array(items=other) if step[0] == "[]":
            yield one, other
        case Map(values=one), Map(values=other) if step[0] == "{}":
            yield one, other
        case Reference(name=read), Reference(name=written) if step[1]:
            mine, theirs = reader.by_name[read], writer.by_name[written]
            if isinstance(mine, RecordSchema) and isinstance(theirs, RecordSchema):
                found |= {Reason.CIRCLE} if _in_circle(mine, step[1]) else set()
                for item in mine.fields:
                    if item.name == step[1]:
                        names = {item.name, *item.aliases}
                        yield from ((item.type, other.type) for other in theirs.fields if other.name in names)


def _in_circle(record: RecordSchema, field: str) -> bool:
    """Return whether an alias of `field` is the name of another field, which has an alias itself."""
    aliased = {item.name for item in record.fields if item.aliases}
    own = next((item for item in record.fields if item.name == field), None)
    return own is not None and any(alias in aliased - {field} for alias in own.aliases)


def _between(one: AvroType, other: AvroType, reader: Schemas, writer: Schemas) -> Iterator[Reason]:
    mine = reader.by_name[one.name] if isinstance(one, Reference) else one
    theirs = writer.by_name[other.name] if isinstance(other, Reference) else other
    if isinstance(mine, Primitive | FixedSchema) and isinstance(theirs, Primitive | FixedSchema):
        if (mine.logical, mine.precision, mine.scale) != (theirs.logical, theirs.precision, theirs.scale):
            yield Reason.LOGICAL
        if (theirs.name, mine.name) in _ROUNDED:
            yield Reason.ROUNDED
        if (theirs.name, mine.name) == ("bytes", "string"):
            yield Reason.TEXT
    if isinstance(mine, EnumSchema | FixedSchema) and isinstance(theirs, EnumSchema | FixedSchema):
        same = mine.name.rpartition(".")[2] == theirs.name.rpartition(".")[2]
        if same and mine.name != theirs.name:
            yield Reason.SPACE
    if isinstance(mine, RecordSchema) and isinstance(theirs, RecordSchema):
        known = {name.rpartition(".")[2] for name in (mine.name, *mine.aliases)}
        if theirs.name.rpartition(".")[2] not in known:
            yield Reason.NAME
