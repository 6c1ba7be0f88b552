"""Which part of a reader's schema takes which part of a writer's: names, aliases, branches of unions. Pure.

The decoder decodes by these decisions and the compatibility rules judge by them, so that the two cannot part. They are
those of Avro's specification ("Schema Resolution") as Java's library carries them out: the reader's aliases rename the
writer's types and fields first, and nested types match by their names without namespace.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from towpath.contract.schema import (
    AvroType,
    Field,
    NamedSchema,
    Primitive,
    RecordSchema,
    Reference,
    Schemas,
    Union,
)

# Writer's type -> the reader's types that Avro lets take it, in the order in which a union's branches are tried.
PROMOTIONS: Final[Mapping[str, frozenset[str]]] = {
    "int": frozenset({"long", "float", "double"}),
    "long": frozenset({"float", "double"}),
    "float": frozenset({"double"}),
    "string": frozenset({"bytes"}),
    "bytes": frozenset({"string"}),
}


@dataclass(frozen=True, slots=True)
class FieldMatch:
    """What becomes of a writer's fields: `taken` by the reader's field of that name, in the writer's order (None is
    skipped); `missing` are the reader's fields that nothing was written for; `twice` those that two were written for;
    `unclear` those whose aliases lead on to another field, as when two change places: libraries part there.
    """

    taken: tuple[tuple[Field, Field | None], ...]
    missing: tuple[Field, ...]
    twice: tuple[Field, ...]
    unclear: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class Resolution:
    """A reader's and a writer's schemas, and the names that the reader's aliases give to the writer's types.

    `is_same` is true where both are one schema: then no alias counts, so that a field may have the name of another as
    its alias (as in Java).
    """

    reader: Schemas
    writer: Schemas
    renamed: Mapping[str, str] = field(default_factory=dict)
    is_same: bool = False

    @classmethod
    def of(cls, root: str, *, reader: Schemas, writer: Schemas) -> "Resolution":
        """Return the resolution for a reader of the type `root`: aliases anywhere inside it count."""
        if root in writer and reader.fingerprint(root) == writer.fingerprint(root):
            return cls(reader, writer, is_same=True)
        renamed = {alias: name for name in reader.reachable(root) for alias in reader[name].aliases}
        return cls(reader, writer, renamed)

    def name_of(self, written: str) -> str:
        """Return the name that a writer's type has for this reader."""
        once = self.renamed.get(written, written)
        return self.renamed.get(once, once)  # Java applies a reader's aliases twice

    def same_type(self, reader: NamedSchema, writer: NamedSchema) -> bool:
        """Return whether two named types are one: of the same kind and, namespaces aside, of the same name."""
        short = self.name_of(writer.name).rpartition(".")[2]
        return type(reader) is type(writer) and short == reader.name.rpartition(".")[2]

    def branch(self, reader: Union, writer: AvroType) -> AvroType | None:
        """Return the branch of a reader's union that takes a writer's type (no union itself), or None.

        The same type first, by full name, then by short name; then the first that it may be promoted to.
        """
        if isinstance(writer, Reference):
            known = self.name_of(writer.name)
            for branch in reader.branches:
                if isinstance(branch, Reference) and branch.name == known:
                    return branch if self.same_type(self.reader[known], self.writer[writer.name]) else None
            for branch in reader.branches:
                if isinstance(branch, Reference) and self.same_type(self.reader[branch.name], self.writer[writer.name]):
                    return branch
            return None
        if not isinstance(writer, Primitive):
            return next((branch for branch in reader.branches if type(branch) is type(writer)), None)
        plain = [branch for branch in reader.branches if isinstance(branch, Primitive)]
        same = next((branch for branch in plain if branch.name == writer.name), None)
        promoted = PROMOTIONS.get(writer.name, frozenset())
        return same or next((branch for branch in plain if branch.name in promoted), None)

    def fields(self, reader: RecordSchema, writer: RecordSchema) -> FieldMatch:
        """Return what becomes of each field. Aliases come before names."""
        by_name = {item.name: item for item in reader.fields}
        # Java knows a reader's aliases by the record's full name; one that matches by its short name alone has none.
        own = not self.is_same and self.name_of(writer.name) == reader.name
        renamed = {alias: item.name for item in reader.fields for alias in item.aliases} if own else {}
        taken = tuple((item, by_name.get(renamed.get(item.name, item.name))) for item in writer.fields)
        found = Counter(item.name for _, item in taken if item is not None)
        missing = tuple(item for item in reader.fields if item.name not in found)
        twice = tuple(item for item in reader.fields if found[item.name] > 1)
        # Where an alias leads to a name that is an alias as well, Java (which applies them twice) ends elsewhere than
        # the specification, and for two fields that change places where it began.
        on = {name for name, _ in renamed.items() if renamed[name] != name}
        unclear = {renamed[item.name] for item in writer.fields if item.name in on and renamed[item.name] in on}
        return FieldMatch(taken, missing, twice, tuple(item for item in reader.fields if item.name in unclear))
