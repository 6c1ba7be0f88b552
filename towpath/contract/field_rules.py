"""What a value must be beyond its type: attributes of the Avro file that the codec holds every producer to. Pure.

| Attribute | Of | Says |
|---|---|---|
| `minimum`, `maximum` | numbers | the smallest and the largest value |
| `minLength`, `maxLength` | texts, bytes, lists, maps | how long it may be |
| `pattern` | texts | a regular expression that the whole text matches |
| `cel` | any field | an expression of the Common Expression Language about `value` |
| `personal` | any field | true: it is about a person |
| `deprecated` | any field | the last day of its use, as `2027-01-31` |

A rule binds who writes: a reader takes what was written before the rule was there.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any, Final

from towpath.contract.cel import CannotRead, compile_cel
from towpath.contract.finding import Finding, Severity
from towpath.contract.python_names import attributes
from towpath.contract.schema import Array, AvroType, Field, Map, Primitive, RecordSchema, Reference, Schemas, Union
from towpath.errors import ConfigurationError, ContractError

Rule = Callable[[Any], str | None]
# The attributes that bind a value, and which of them say how little and how much is allowed.
RULES: Final = ("minimum", "maximum", "minLength", "maxLength", "pattern", "cel")
LEAST: Final = frozenset({"minimum", "minLength"})
MOST: Final = frozenset({"maximum", "maxLength"})
_NUMBERS: Final = ("minimum", "maximum")
_LENGTHS: Final = ("minLength", "maxLength")


class RuleBroken(ValueError):
    """A value breaks a rule of its field. The text names field and rule, never the value."""


def compile_rules(schemas: Schemas) -> dict[str, Rule]:
    """Return, for each record that has rules or holds one that has, a function that returns what breaks them.

    Raises ContractError for a rule that cannot be, and ConfigurationError where `cel` is used and not installed.
    """
    own = {record.name: _own_rules(record) for record in schemas.records()}
    ruled = {name for name, rules in own.items() if rules}
    return {
        record.name: _checker(schemas, own, record.name)
        for record in schemas.records()
        if ruled & set(schemas.reachable(record.name))
    }


def guarded(encoder: Callable[[Any, Any, int], None], rule: Rule | None) -> Callable[[Any, Any, int], None]:
    """Return `encoder`, held to `rule`; itself where there is none, so that records without rules pay nothing."""
    if rule is None:
        return encoder

    def encode(record: Any, buffer: Any, depth: int) -> None:
        encoder(record, buffer, depth)  # a value that does not fit its type is told first
        if problem := rule(record):
            raise RuleBroken(problem)

    return encode


def _checker(schemas: Schemas, own: Mapping[str, Mapping[str, Rule]], name: str) -> Rule:
    def check(record: Any) -> str | None:
        return next(_problems(schemas, own, name, record, ""), None)

    return check


def _problems(
    schemas: Schemas, own: Mapping[str, Mapping[str, Rule]], name: str, record: Any, path: str
) -> Iterator[str]:
    schema = schemas.record(name)
    names = attributes(schema)
    for item in schema.fields:
        value, place = getattr(record, names[item.name]), f"{path}{item.name}"
        rule = own[name].get(item.name)
        if rule is not None and value is not None and (problem := rule(value)):
            yield f"{place}: {problem}"
        yield from _inside(schemas, own, item.type, value, place)


def _inside(
    schemas: Schemas, own: Mapping[str, Mapping[str, Rule]], schema: AvroType, value: Any, place: str
) -> Iterator[str]:
    match schema:
        case Reference(name=name) if isinstance(schemas[name], RecordSchema) and value is not None:
            yield from _problems(schemas, own, name, value, f"{place}.")
        case Array(items=items):
            for number, item in enumerate(value or ()):
                yield from _inside(schemas, own, items, item, f"{place}[{number}]")
        case Map(values=values):
            for item in (value or {}).values():
                yield from _inside(schemas, own, values, item, f"{place}{{}}")
        case Union(present=present) if value is not None:
            known = getattr(value, "SCHEMA_NAME", None)
            for branch in present:
                if branch.name == known if isinstance(branch, Reference) else len(present) == 1:
                    yield from _inside(schemas, own, branch, value, place)


def _own_rules(record: RecordSchema) -> dict[str, Rule]:
    found: dict[str, Rule] = {}
    for item in record.fields:
        rules = list(_rules(record, item))
        if rules:
            found[item.name] = _all(rules)
    return found


def _all(rules: list[Rule]) -> Rule:
    return (
        rules[0] if len(rules) == 1 else lambda value: next((found for rule in rules if (found := rule(value))), None)
    )


def _rules(record: RecordSchema, item: Field) -> Iterator[Rule]:
    for name in _NUMBERS:
        if name in item.properties:
            yield _number(name, _bound(record, item, name, (int, float)))
    for name in _LENGTHS:
        if name in item.properties:
            yield _length(name, int(_bound(record, item, name, (int,))))
    if "pattern" in item.properties:
        yield _pattern(record, item)
    if "cel" in item.properties:
        yield _expression(record, item)


def _bound(record: RecordSchema, item: Field, name: str, kinds: tuple[type, ...]) -> float:
    value: Any = item.properties[name]
    if type(value) not in kinds:
        raise _wrong(record, item, f"{name} is {value!r}, and must be a number")
    return value  # type: ignore[no-any-return]


def _number(name: str, bound: float) -> Rule:
    exact = Decimal(str(bound))
    low = name == "minimum"

    def rule(value: Any) -> str | None:
        if not isinstance(value, int | float | Decimal) or isinstance(value, bool):
            return None
        given = value if isinstance(value, Decimal) else Decimal(repr(value))
        if given.is_nan():  # neither below nor above
            return f"is no number, and has a {name}"
        fits = given >= exact if low else given <= exact
        return None if fits else f"is {'below its minimum' if low else 'above its maximum'} of {bound}"

    return rule


def _length(name: str, bound: int) -> Rule:
    low = name == "minLength"

    def rule(value: Any) -> str | None:
        length = len(value) if hasattr(value, "__len__") else None
        if length is None or (length >= bound if low else length <= bound):
            return None
        return f"is {length} long, and {name} is {bound}"

    return rule


def _pattern(record: RecordSchema, item: Field) -> Rule:
    text = item.properties["pattern"]
    try:
        wanted = re.compile(text)
    except (re.error, TypeError) as error:
        raise _wrong(record, item, f"pattern is no regular expression: {error}") from error
    return lambda value: (
        None if not isinstance(value, str) or wanted.fullmatch(value) else f"does not match the pattern {text}"
    )


def _expression(record: RecordSchema, item: Field) -> Rule:
    try:
        return compile_cel(item.properties["cel"])
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{record.name}.{item.name} has a rule in CEL, which is not installed",
            next_step="pip install 'towpath[cel]'",
        ) from error
    except CannotRead as error:
        raise _wrong(record, item, f"cel cannot be read: {error}") from error


def _wrong(record: RecordSchema, item: Field, problem: str) -> ContractError:
    return ContractError(f"{record.name}.{item.name}: {problem}", next_step="fix the attribute in its .avsc file")


def rule_findings(schemas: Schemas) -> Iterator[Finding]:
    """Yield every rule that cannot be, or that no value of its field would ever be held to."""
    for record in schemas.records():
        for item in record.fields:
            for name in (*RULES, "deprecated", "personal"):
                problem = _problem_of(record, item, name) if name in item.properties else None
                if problem is not None:
                    place = f"{record.name.rpartition('.')[2]}.{item.name}"
                    fix = "correct the attribute, or call it something else if it is meant for another program"
                    yield Finding("field-rule", record.name, f"{place}: {problem}", fix=fix, place=place)


def _problem_of(record: RecordSchema, item: Field, name: str) -> str | None:
    value = item.properties[name]
    if name == "personal":
        return None if isinstance(value, bool) else f"personal is {value!r}, and must be true or false"
    alone = replace(item, properties={name: value})
    try:
        _last_day(record, alone)
        list(_rules(record, alone))
    except ContractError as error:
        return error.cause.removeprefix(f"{record.name}.{item.name}: ")
    if name in _APPLIES and not any(_APPLIES[name](branch) for branch in _branches(item.type)):
        return f"its type has no {_WORDS[name]}, so that {name} never applies"
    if name in _LENGTHS and value < 0:
        return f"{name} is {value}, and must not be negative"
    for least, most in (_NUMBERS, _LENGTHS):
        if name == most and type(item.properties.get(least)) in (int, float) and item.properties[least] > value:
            return f"{least} is {item.properties[least]} and {most} {value}: no value fits"
    return None


def _branches(schema: AvroType) -> tuple[AvroType, ...]:
    return schema.present if isinstance(schema, Union) else (schema,)


def _is_number(schema: AvroType) -> bool:
    if not isinstance(schema, Primitive):
        return isinstance(schema, Reference)  # a fixed may hold a decimal
    return schema.logical in {"decimal", "timestamp-nanos", "local-timestamp-nanos"} or (
        schema.logical is None and schema.name in {"int", "long", "float", "double"}
    )


def _has_length(schema: AvroType) -> bool:
    if isinstance(schema, Primitive):
        return schema.logical is None and schema.name in {"string", "bytes"}
    return isinstance(schema, Array | Map | Reference)


def _is_text(schema: AvroType) -> bool:
    return isinstance(schema, Reference) or (
        isinstance(schema, Primitive) and schema.logical is None and schema.name == "string"
    )


_APPLIES: Final[Mapping[str, Callable[[AvroType], bool]]] = {
    **dict.fromkeys(_NUMBERS, _is_number),
    **dict.fromkeys(_LENGTHS, _has_length),
    "pattern": _is_text,
}
_WORDS: Final = {**dict.fromkeys(_NUMBERS, "numbers"), **dict.fromkeys(_LENGTHS, "length"), "pattern": "text"}


def annotation_findings(
    schemas: Schemas, readers: Mapping[str, Mapping[str, Schemas]], today: date
) -> Iterator[Finding]:
    """Yield what the annotations say to those who read: fields past their last day, and who still uses such fields."""
    for record in schemas.records():
        short = record.name.rpartition(".")[2]
        for item in record.fields:
            place = f"{short}.{item.name}"
            users = tuple(sorted(who for who, reads in readers.items() if _uses(reads.get(record.name), item.name)))
            if (until := _last_day(record, item)) is not None:
                over = until < today
                yield Finding(
                    "deprecated-field",
                    record.name,
                    f"{place}: {'its last day was' if over else 'it is deprecated, and its last day is'} {until}",
                    breaks=users,
                    fix="remove it, once nobody reads it" if over else "have its readers do without it by then",
                    place=place,
                    severity=Severity.ERROR if over else Severity.WARNING,
                )
            if item.properties.get("personal") is True and users:
                yield Finding(
                    "personal-field",
                    record.name,
                    f"{place}: it is about a person, and is read by {', '.join(users)}",
                    fix="be sure that they may; or take it out of their reader schemas",
                    place=place,
                    severity=Severity.WARNING,
                )


def _uses(reader: Schemas | None, field: str) -> bool:
    if reader is None:
        return False
    outermost = next(iter(reader.by_name.values()))
    return isinstance(outermost, RecordSchema) and any(item.name == field for item in outermost.fields)


def _last_day(record: RecordSchema, item: Field) -> date | None:
    value = item.properties.get("deprecated")
    if value is None:
        return None
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise _wrong(record, item, f"deprecated is {value!r}, and must be a day like 2027-01-31") from error
