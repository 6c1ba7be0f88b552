"""Finds changes that every reader decodes and that mean something else: what compatibility rules cannot see. Pure.

Each rule has a name, so that a project can waive it where the change is meant.
"""

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from towpath.contract.field_rules import LEAST, MOST, RULES
from towpath.contract.schema import (
    Array,
    AvroType,
    EnumSchema,
    Field,
    Map,
    NamedSchema,
    Primitive,
    RecordSchema,
    Reference,
    Union,
)

# Words of names and documentation that say in what something is counted; those of one family exclude each other.
_UNITS: Final[Mapping[str, tuple[frozenset[str], ...]]] = {
    "money": (
        frozenset({"cent", "cents", "pence", "penny", "minor"}),
        frozenset({"euro", "euros", "dollar", "dollars", "pound", "pounds", "major"}),
    ),
    "currency": tuple(frozenset({code}) for code in ("eur", "usd", "gbp", "chf", "jpy", "sek", "pln", "inr")),
    "time": (
        frozenset({"nanosecond", "nanoseconds", "nanos", "ns"}),
        frozenset({"microsecond", "microseconds", "micros", "us"}),
        frozenset({"millisecond", "milliseconds", "millis", "ms"}),
        frozenset({"second", "seconds", "secs"}),
        frozenset({"minute", "minutes", "mins"}),
        frozenset({"hour", "hours"}),
        frozenset({"day", "days"}),
    ),
    "length": (
        frozenset({"millimetre", "millimetres", "millimeter", "millimeters", "mm"}),
        frozenset({"centimetre", "centimetres", "centimeter", "centimeters", "cm"}),
        frozenset({"metre", "metres", "meter", "meters"}),
        frozenset({"kilometre", "kilometres", "kilometer", "kilometers", "km"}),
        frozenset({"inch", "inches"}),
        frozenset({"foot", "feet"}),
        frozenset({"mile", "miles"}),
    ),
    "weight": (
        frozenset({"gram", "grams"}),
        frozenset({"kilogram", "kilograms", "kg"}),
        frozenset({"ounce", "ounces", "oz"}),
        frozenset({"lb", "lbs"}),
    ),
    "share": (
        frozenset({"percent", "percentage", "pct"}),
        frozenset({"permille"}),
        frozenset({"bps", "basis"}),
        frozenset({"fraction", "ratio"}),
    ),
    "size": (
        frozenset({"bytes"}),
        frozenset({"kilobytes", "kb", "kib"}),
        frozenset({"megabytes", "mb", "mib"}),
        frozenset({"gigabytes", "gb", "gib"}),
    ),
    "temperature": (frozenset({"celsius"}), frozenset({"fahrenheit"}), frozenset({"kelvin"})),
    "scale": (
        frozenset({"tenths"}),
        frozenset({"hundredths"}),
        frozenset({"thousandths"}),
        frozenset({"hundreds"}),
        frozenset({"thousands"}),
        frozenset({"millions"}),
    ),
    "tax": (frozenset({"net"}), frozenset({"gross"})),
    "zone": (frozenset({"utc"}), frozenset({"local"})),
}
_WORD: Final = re.compile(r"[a-z]+")
_EMPTY_WORDS: Final = frozenset(
    (
        "a",
        "an",
        "the",
        "of",
        "in",
        "is",
        "are",
        "was",
        "it",
        "its",
        "to",
        "for",
        "and",
        "or",
        "by",
        "on",
        "at",
        "as",
        "if",
    )
)
_REQUIRED: Final = re.compile(r"\b(required|mandatory|must|always|never (empty|null|missing))\b", re.IGNORECASE)
_PLACEHOLDERS: Final = ("", 0, 0.0, -1, None, "unknown", "none", "n/a")
# Type -> the types that hold less of it.
_NARROWER: Final[Mapping[str, frozenset[str]]] = {
    "double": frozenset({"float", "int", "long"}),
    "float": frozenset({"int"}),
    "long": frozenset({"int", "float"}),
}
_LIKENESS: Final = 0.6


@dataclass(frozen=True, slots=True)
class Lint:
    """One change of meaning. `place` is `<Record>.<field>`, or the name of an enum."""

    rule: str
    place: str
    problem: str
    fix: str


def lints(old: NamedSchema, new: NamedSchema) -> Iterator[Lint]:
    """Yield what changed its meaning between two forms of one named type; types inside have their own turn."""
    match old, new:
        case RecordSchema(), RecordSchema():
            yield from _record(old, new)
        case EnumSchema(), EnumSchema():
            yield from _enum(old, new)


def _record(old: RecordSchema, new: RecordSchema) -> Iterator[Lint]:
    short = new.name.rpartition(".")[2]
    before = {item.name: item for item in old.fields}
    added: list[Field] = []
    taken: set[str] = set()
    for item in new.fields:
        known = next((name for name in (item.name, *item.aliases) if name in before), None)
        if known is None:
            added.append(item)
            continue
        taken.add(known)
        yield from _field(f"{short}.{item.name}", before[known], item)
    removed = [item for item in old.fields if item.name not in taken]
    for item in added:
        place = f"{short}.{item.name}"
        twin = next((gone for gone in removed if _renamed(gone, item)), None)
        if twin is not None:
            yield Lint(
                "renamed-without-alias",
                place,
                f"it looks like {twin.name} under a new name: readers would take the default for what was written",
                f"give it the alias {twin.name!r}; or where it is another thing, waive this",
            )
        elif _is_required_in_practice(item):
            yield Lint(
                "required-in-practice",
                place,
                f"it is needed, by its name or its documentation, and old records give it the default "
                f"{json.dumps(item.default, ensure_ascii=False)}",
                "make it null by default, and have readers handle null; or a new record",
            )


def _field(place: str, old: Field, new: Field) -> Iterator[Lint]:
    for family, before, after in _units_changed(f"{old.name} {old.doc}", f"{new.name} {new.doc}"):
        yield Lint(
            "unit-changed",
            place,
            f"its {family} was {before} and is {after}: readers would take the one for the other",
            "add a new field that names its unit, and keep this one",
        )
    if old.has_default and new.has_default and json.dumps(old.default) != json.dumps(new.default):
        yield Lint(
            "default-changed",
            place,
            f"its default was {json.dumps(old.default)} and is {json.dumps(new.default)}: "
            "the same old record is read as another value, before and after",
            "keep the default; or write the value in every record first",
        )
    if old.name != new.name and not _akin(old, new):
        yield Lint(
            "field-repurposed",
            place,
            f"it takes what was written as {old.name}, and neither name nor documentation says the same",
            f"add {new.name} as a field of its own, without the alias",
        )
    elif old.name == new.name and _says_another_thing(old.doc, new.doc):
        yield Lint(
            "field-repurposed",
            place,
            "its documentation says another thing than before: old records keep the old meaning",
            "add a field of its own for the new meaning",
        )
    yield from _rules(place, old, new)
    yield from _types(place, old.type, new.type)


def _rules(place: str, old: Field, new: Field) -> Iterator[Lint]:
    """Yield where the rules of a field (see `field_rules`) allow less than before, or more."""
    for name in RULES:
        before, after = old.properties.get(name), new.properties.get(name)
        if before == after:
            continue
        said = f"its {name} was {_rule_in_words(before)} and is {_rule_in_words(after)}"
        if _allows_less(name, before, after):
            yield Lint(
                "rule-tightened",
                place,
                f"{said}: what was written before may break it, and a writer that still writes such values is refused",
                "have readers take the old values as well, and every writer keep the new rule, then waive this",
            )
        else:
            yield Lint(
                "rule-loosened",
                place,
                f"{said}: readers of today may count on it, and will meet values that it forbade",
                "deploy readers that take the new values before a writer uses them, then waive this",
            )


def _allows_less(name: str, before: Any, after: Any) -> bool:
    """Return whether `after` forbids what `before` allowed; of two patterns or expressions nobody can tell."""
    if before is None or after is None:
        return after is not None
    if name in LEAST:
        return bool(after > before)
    return bool(after < before) if name in MOST else True


def _rule_in_words(rule: Any) -> str:
    return "not there" if rule is None else json.dumps(rule, ensure_ascii=False)


def _types(place: str, old: AvroType, new: AvroType) -> Iterator[Lint]:
    match old, new:
        case Union(), Union():
            names = {_name(branch) for branch in old.branches}
            for branch in new.branches:
                if _name(branch) not in names:
                    yield _unread(place, branch)
            yield from _types(place, _only(old), _only(new))
        case _, Union() if new.present != (old,):
            for branch in new.branches:
                if _name(branch) != _name(old):
                    yield _unread(place, branch)
        case _, Union():
            yield _unread(place, Primitive("null"))
        case (Array(items=before), Array(items=after)) | (Map(values=before), Map(values=after)):
            yield from _types(place, before, after)
        case Primitive(), Primitive() if _narrowed(old, new):
            yield Lint(
                "precision-narrowed",
                place,
                f"it was {_name(old)} and is {_name(new)}: readers of the old form take the rounded value "
                "for the whole one",
                "keep the type; or add a field of the new type",
            )


def _unread(place: str, branch: AvroType) -> Lint:
    return Lint(
        "union-branch-unread",
        place,
        f"{_name(branch)} is new among its types: no reader that runs today knows it",
        "deploy the readers before a writer uses it",
    )


def _only(schema: Union) -> AvroType:
    return schema.present[0] if len(schema.present) == 1 else schema.branches[0]


def _narrowed(old: Primitive, new: Primitive) -> bool:
    if old.logical == new.logical == "decimal":
        return (new.precision or 0) < (old.precision or 0) and new.scale == old.scale
    return old.logical is None and new.logical is None and new.name in _NARROWER.get(old.name, ())


def _enum(old: EnumSchema, new: EnumSchema) -> Iterator[Lint]:
    short = new.name.rpartition(".")[2]
    added = [symbol for symbol in new.symbols if symbol not in old.symbols]
    removed = [symbol for symbol in old.symbols if symbol not in new.symbols]
    if added and old.default is not None:
        yield Lint(
            "enum-default-swallows",
            short,
            f"readers that do not know {', '.join(added)} yet read {old.default}, and say nothing",
            "deploy the readers before a writer uses it",
        )
    if removed and new.default is not None:
        yield Lint(
            "enum-default-swallows",
            short,
            f"old records with {', '.join(removed)} are read as {new.default}, and nobody is told",
            "keep the symbol for as long as topics keep its records",
        )
    if old.default is not None and new.default is not None and old.default != new.default:
        yield Lint(
            "default-changed",
            short,
            f"its default was {old.default} and is {new.default}: the same unknown symbol is read as another one",
            "keep the default",
        )


def _units_changed(old: str, new: str) -> Iterator[tuple[str, str, str]]:
    """Yield family, old and new unit, where the texts name units of one family that exclude each other."""
    before, after = _words(old), _words(new)
    for family, units in _UNITS.items():
        had = {place for place, words in enumerate(units) if words & before}
        has = {place for place, words in enumerate(units) if words & after}
        if had and has and not had & has:
            yield family, _word_of(units, had, before), _word_of(units, has, after)


def _word_of(units: tuple[frozenset[str], ...], places: set[int], words: set[str]) -> str:
    return sorted(units[min(places)] & words)[0]


def _words(text: str) -> set[str]:
    return set(_WORD.findall(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).lower()))


def _telling(text: str) -> set[str]:
    return _words(text) - _EMPTY_WORDS


def _akin(old: Field, new: Field) -> bool:
    """Return whether two fields look like the same thing under another name."""
    if _says_another_thing(old.doc, new.doc):
        return False
    if old.doc and old.doc == new.doc:
        return True
    named = difflib.SequenceMatcher(None, old.name.lower(), new.name.lower()).ratio() >= _LIKENESS
    return named or bool(_telling(f"{old.name} {old.doc}") & _telling(f"{new.name} {new.doc}"))


def _says_another_thing(old: str, new: str) -> bool:
    before, after = _telling(old), _telling(new)
    return len(before) > 2 and len(after) > 2 and not before & after


def _renamed(old: Field, new: Field) -> bool:
    if not (old.has_default and new.has_default) or _name(old.type) != _name(new.type):
        return False
    return (bool(old.doc) and old.doc == new.doc) or (
        difflib.SequenceMatcher(None, old.name.lower(), new.name.lower()).ratio() >= _LIKENESS
    )


def _is_required_in_practice(item: Field) -> bool:
    if not item.has_default or not any(_same(item.default, empty) for empty in _PLACEHOLDERS):
        return False
    named = item.default is not None and re.search(r"(_id|_key|[a-z]Id)$", item.name) is not None
    return named or _REQUIRED.search(item.doc) is not None


def _same(value: Any, other: Any) -> bool:
    return type(value) is type(other) and bool(value == other)


def _name(schema: AvroType) -> str:
    match schema:
        case Primitive(logical="decimal"):
            return f"decimal({schema.precision}, {schema.scale})"
        case Primitive():
            return schema.logical or schema.name
        case Reference():
            return schema.name
        case Array():
            return f"an array of {_name(schema.items)}"
        case Map():
            return f"a map of {_name(schema.values)}"
        case Union():
            return " or ".join(_name(branch) for branch in schema.branches)
