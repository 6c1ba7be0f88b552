"""Whether a reader's schema can read what a writer's schema wrote, and if not, why, in words.

Pure. The rules are those of Avro's specification ("Schema Resolution"), made stricter where Avro would read without
an error and get another value: a change of logical type (milliseconds read as microseconds), or a promotion that
rounds (long to double), is a break here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from towpath.contract.resolution import Resolution
from towpath.contract.schema import (
    NULL,
    Array,
    AvroType,
    EnumSchema,
    Field,
    FixedSchema,
    Map,
    NamedSchema,
    Primitive,
    RecordSchema,
    Reference,
    Schemas,
    Union,
)

# Writer's type -> the reader's types that take every value of it unchanged.
_PROMOTIONS: Final[Mapping[str, frozenset[str]]] = {
    "int": frozenset({"long", "double"}),
    "float": frozenset({"double"}),
    "string": frozenset({"bytes"}),
}
# Avro lets these pass as well: the first two round large numbers, the third fails where bytes are no text.
_LOSSY: Final[Mapping[str, frozenset[str]]] = {
    "int": frozenset({"float"}),
    "long": frozenset({"float", "double"}),
    "bytes": frozenset({"string"}),
}


@dataclass(frozen=True, slots=True)
class Break:
    """One place where a reader cannot read a writer. `place` is a path of fields; `fix` is what would help.

    `writer_fix` is what helps where the reader runs already, so that only the writer can change; empty: the same.
    """

    place: str
    problem: str
    fix: str
    writer_fix: str = ""

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}"

    def fix_of(self, *, reader: bool) -> str:
        """Return what helps where only one side can change: the reader, or else the writer."""
        return self.fix if reader else self.writer_fix or self.fix


def breaks(name: str, *, reader: Schemas, writer: Schemas) -> tuple[Break, ...]:
    """Return every reason why `reader`'s form of the record `name` cannot read what `writer`'s form wrote."""
    return tuple(_Comparison(Resolution.of(name, reader=reader, writer=writer)).root(name))


class _Comparison:
    """Walks two schemas side by side."""

    def __init__(self, resolution: Resolution) -> None:
        self._resolution = resolution
        self._reader = resolution.reader
        self._writer = resolution.writer
        self._compared: set[tuple[str, str]] = set()  # a record may contain itself

    def root(self, name: str) -> Iterator[Break]:
        """Compare the reader's record with the writer's of the same name, or of the name it had before."""
        names = (name, *self._reader[name].aliases)
        written = next((self._writer[known] for known in names if known in self._writer), None)
        if written is None:
            yield self._other(name.rpartition(".")[2], name, "no such record")
        else:
            yield from self.named(self._reader[name], written, name.rpartition(".")[2])

    def types(self, reader: AvroType, writer: AvroType, place: str) -> Iterator[Break]:
        match reader, writer:
            case _, Union(branches=branches):
                for branch in branches:
                    yield from self._one_of(reader, branch, place, writer)
            case Union(), _:
                yield from self._one_of(reader, writer, place, writer)
            case Primitive(), Primitive():
                yield from self._primitives(reader, writer, place)
            case Array(), Array():
                yield from self.types(reader.items, writer.items, f"{place}[]")
            case Map(), Map():
                yield from self.types(reader.values, writer.values, f"{place}{{}}")
            case Reference(), Reference():
                yield from self.named(self._reader[reader.name], self._writer[writer.name], place)
            case _:
                yield self._other(place, _words(reader), _words(writer))

    def _one_of(self, reader: AvroType, branch: AvroType, place: str, whole: AvroType) -> Iterator[Break]:
        """Compare one branch that the writer may have written, of its type `whole`, with whatever the reader takes."""
        if not isinstance(reader, Union):
            yield from self.types(reader, branch, place)
            return
        taken = self._resolution.branch(reader, branch)
        if taken is None and branch != NULL and len(reader.present) == 1:
            taken = reader.present[0]  # its own reasons say more than "none of them"
        if taken is None:
            yield self._other(place, _words(reader), _words(branch))
        elif (
            isinstance(branch, Reference)
            and isinstance(taken, Reference)
            and self._is_moved(taken, branch)
            and not self._alike(reader, whole, set())
        ):
            yield Break(
                place,
                f"the reader's union has {taken.name}, the writer wrote {branch.name}: Java finds an enum or a fixed "
                "of a union that changed by its full name alone",
                f"name {branch.name} among the aliases of {taken.name}",
                "keep the namespace, or add a new field, and keep this one",
            )
        else:
            yield from self.types(taken, branch, place)

    def _is_moved(self, reader: Reference, writer: Reference) -> bool:
        """Return whether an enum or fixed is one to Python, by its short name, and another to Java's reader."""
        mine, theirs = self._reader[reader.name], self._writer[writer.name]
        found = not isinstance(mine, RecordSchema) and self._resolution.same_type(mine, theirs)
        return found and reader.name != self._resolution.name_of(writer.name)

    def _alike(  # noqa: PLR0911 - a case each
        self, reader: AvroType, writer: AvroType, seen: set[tuple[str, str]]
    ) -> bool:
        """Return whether two types are one but for namespaces: then Java reads unions of them by their branches' order.

        The rule is that of `unionEquiv` in Java's `Resolver`.
        """
        match reader, writer:
            case Union(), Union():
                pairs = zip(reader.branches, writer.branches, strict=False)
                same = len(reader.branches) == len(writer.branches)
                return same and all(self._alike(*pair, seen) for pair in pairs)
            case Array(), Array():
                return self._alike(reader.items, writer.items, seen)
            case Map(), Map():
                return self._alike(reader.values, writer.values, seen)
            case Primitive(), Primitive():
                return reader.name == writer.name
            case Reference(), Reference():
                mine, theirs = self._reader[reader.name], self._writer[writer.name]
                if (mine.name, theirs.name) in seen:
                    return True
                seen.add((mine.name, theirs.name))
                return self._resolution.same_type(mine, theirs) and self._parts_alike(mine, theirs, seen)
            case _:
                return False

    def _parts_alike(self, reader: NamedSchema, writer: NamedSchema, seen: set[tuple[str, str]]) -> bool:
        match reader, writer:
            case EnumSchema(), EnumSchema():
                return reader.symbols == writer.symbols
            case FixedSchema(), FixedSchema():
                return reader.size == writer.size
            case RecordSchema(), RecordSchema():
                pairs = zip(reader.fields, writer.fields, strict=False)
                same = [item.name for item in reader.fields] == [item.name for item in writer.fields]
                return same and all(self._alike(mine.type, theirs.type, seen) for mine, theirs in pairs)
            case _:
                return False

    def _logical(self, reader: Primitive | FixedSchema, writer: Primitive | FixedSchema, place: str) -> Iterator[Break]:
        if reader.logical != writer.logical:
            yield Break(
                place,
                f"the reader takes it for {_kind(reader)}, the writer meant {_kind(writer)}: "
                "it would read another value",
                "add a new field of the new type, and keep this one",
            )
        elif reader.logical == "decimal" and (
            reader.scale != writer.scale or (reader.precision or 0) < (writer.precision or 0)
        ):
            yield self._other(place, _kind(reader), _kind(writer))

    def _primitives(self, reader: Primitive, writer: Primitive, place: str) -> Iterator[Break]:
        if reader.name in _LOSSY.get(writer.name, ()):
            yield Break(
                place,
                f"the reader takes {reader.name} for the writer's {writer.name}: it may read another value, or none",
                "add a new field of the new type, and keep this one",
            )
        elif reader.name != writer.name and reader.name not in _PROMOTIONS.get(writer.name, ()):
            yield self._other(place, _words(reader), _words(writer))
        else:
            yield from self._logical(reader, writer, place)

    def named(self, reader: NamedSchema, writer: NamedSchema, place: str) -> Iterator[Break]:
        if not self._resolution.same_type(reader, writer):
            known = self._resolution.name_of(writer.name)
            alias = f", which the reader calls {known} by an alias" if known != writer.name else ""
            yield self._other(place, reader.name, f"{writer.name}{alias}")
            return
        match reader, writer:
            case RecordSchema(), RecordSchema():
                if (reader.name, writer.name) not in self._compared:
                    self._compared.add((reader.name, writer.name))
                    yield from self._fields(reader, writer, place)
            case EnumSchema(), EnumSchema():
                unknown = [symbol for symbol in writer.symbols if symbol not in reader.symbols]
                if unknown and reader.default is None:
                    yield Break(
                        place,
                        f"the reader does not know the symbols {', '.join(unknown)}",
                        "give the enum a default, in a version that readers have before a writer uses the new symbol",
                    )
            case FixedSchema(), FixedSchema() if reader.size != writer.size:
                yield self._other(place, f"{reader.size} bytes", f"{writer.size} bytes")
            case FixedSchema(), FixedSchema():
                yield from self._logical(reader, writer, place)

    def _fields(self, reader: RecordSchema, writer: RecordSchema, record: str) -> Iterator[Break]:
        match = self._resolution.fields(reader, writer)
        written = {taken.name: item for item, taken in match.taken if taken is not None}
        for item in reader.fields:
            place = f"{record}.{item.name}"
            if item in match.twice:
                both = " and ".join(found.name for found, taken in match.taken if taken == item)
                yield Break(
                    place,
                    f"the writer writes both {both}, which are one field to the reader",
                    "remove the alias, until nobody writes the old field any more",
                    f"write one of {both} alone",
                )
            elif item in match.unclear:
                yield Break(
                    place,
                    "its alias is the name of a field that has an alias as well: libraries read one or the other",
                    "give both fields new names, each with its old name as the alias",
                )
            elif item.name in written:
                yield from self.types(item.type, written[item.name].type, place)
            elif not item.has_default:
                yield self._missing(place, item)

    def _missing(self, place: str, item: Field) -> Break:
        return Break(
            place,
            "the reader needs it, the writer does not write it, and it has no default",
            f"give {item.name} a default, or where it was renamed, name the old one among its aliases",
            f"go on writing {item.name} while such readers run: give it a default first, and take it out once every "
            "reader has that default; then waive this for the forms that nobody reads with any more",
        )

    def _other(self, place: str, reader: str, writer: str) -> Break:
        return Break(
            place, f"the reader takes {reader}, the writer wrote {writer}", "add a new field, and keep this one"
        )


def _kind(schema: Primitive | FixedSchema) -> str:
    if schema.logical == "decimal":
        return f"decimal({schema.precision}, {schema.scale})"
    return schema.logical or schema.name


def _words(schema: AvroType) -> str:
    match schema:
        case Primitive():
            return _kind(schema)
        case Array():
            return f"an array of {_words(schema.items)}"
        case Map():
            return f"a map of {_words(schema.values)}"
        case Union():
            return " or ".join(_words(branch) for branch in schema.branches)
        case Reference():
            return schema.name
