"""What the schemas' names are called in Python: classes, attributes, members of enums. Pure and deterministic.

The names on the wire stay as they are; only a name that Python cannot take, or would take for something else, changes.
"""

import builtins
import keyword
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from towpath.contract.schema import EnumSchema, RecordSchema

# What the base class of records has.
_OF_RECORDS: Final = frozenset({"SCHEMA_NAME", "SCHEMA_FINGERPRINT"})
_OF_ENUMS: Final = frozenset(dir(str)) | {"name", "value", "mro", "_ignore_", "_order_", "_missing_"}
# What a generated module imports: a record of such a name gives way.
_IMPORTED: Final = frozenset(
    {
        "ClassVar", "Decimal", "Duration", "Mapping", "Record", "StrEnum", "UUID",
        "dataclass", "date", "datetime", "field", "time",
    }
)  # fmt: skip
_BUILT_IN: Final = frozenset(dir(builtins))


def attributes(schema: RecordSchema) -> Mapping[str, str]:
    """Return the attribute that holds each field of a record, by the field's name."""
    names = [item.name for item in schema.fields]
    return _unique(names, {name: _unmangled(name, "field") for name in names}, _OF_RECORDS)


def members(schema: EnumSchema) -> Mapping[str, str]:
    """Return the member that stands for each symbol of an enum: in capitals, unless two would then be one."""
    alike = Counter(symbol.upper() for symbol in schema.symbols)
    wanted = {symbol: _member(symbol.upper() if alike[symbol.upper()] == 1 else symbol) for symbol in schema.symbols}
    return _unique(schema.symbols, wanted, _OF_ENUMS)


def classes(names: Iterable[str]) -> Mapping[str, str]:
    """Return the class for each named type of one module, by full name: the short name where no two share it, else as
    many parts of the namespace before it as tell them apart.
    """
    ordered = sorted(names)
    wanted = {name: _unmangled(tail.replace(".", "_"), "Type") for name, tail in shortest_names(ordered).items()}
    return _unique(ordered, wanted, _IMPORTED | _BUILT_IN)


def shortest_names(names: Iterable[str]) -> dict[str, str]:
    """Return the end of each full name that tells it from the others, as few of its parts as that takes."""
    apart = {name: name.split(".") for name in names}
    return {name: ".".join(parts[-_parts_needed(parts, apart.values()) :]) for name, parts in apart.items()}


def _parts_needed(parts: Sequence[str], all_parts: Iterable[Sequence[str]]) -> int:
    others = [other for other in all_parts if other != parts and other[-1] == parts[-1]]
    fitting = (length for length in range(1, len(parts)) if all(other[-length:] != parts[-length:] for other in others))
    return next(fitting, len(parts))


def _unmangled(name: str, kind: str) -> str:
    # Python mangles names that begin with two underscores inside a class, and a module has words of its own among them.
    bare = name.lstrip("_") if name.startswith("__") else name
    return _unreserved(bare if bare.isidentifier() else f"{kind}_{bare}".rstrip("_"))


def _member(name: str) -> str:
    # A name between underscores is one of enum's own words, one that begins with two is mangled.
    bare = name.strip("_") if name.startswith("_") else name
    return _unreserved(bare if bare.isidentifier() else f"SYMBOL_{bare}".rstrip("_"))


def _unreserved(name: str) -> str:
    return f"{name}_" if keyword.iskeyword(name) else name


def _unique(names: Sequence[str], wanted: Mapping[str, str], reserved: frozenset[str]) -> dict[str, str]:
    """Give each name what it wants; one that is reserved, or wanted by another that needs no change, gets a `_`."""
    unchanged = {name for name in names if wanted[name] == name and name not in reserved}
    taken = set(unchanged)
    found: dict[str, str] = {}
    for name in names:
        chosen = wanted[name]
        while name not in unchanged and (chosen in taken or chosen in reserved):
            chosen += "_"
        taken.add(chosen)
        found[name] = chosen
    return found


def stand_in(name: str, taken: Iterable[str]) -> str:
    """Return another name for a type that an attribute of the same name would hide inside a class."""
    known = set(taken)
    while name in known:
        name += "_"
    return name
