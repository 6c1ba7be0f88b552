"""Which records a replay takes. Pure.

The one rule: a selection is a value that a plan keeps, so what is sent is what was looked at. What can be told from a
record as it lies in the log is asked first; only then is it decoded, for the predicate.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from towpath.errors import ConfigurationError, first_line
from towpath.stream.broker.record import ConsumedRecord

Predicate = Callable[[Any, ConsumedRecord], bool]


@dataclass(slots=True)
class Judged:
    """Of how many records a predicate could say yes or no, of how many not, and why of the first of these."""

    judged: int = 0
    not_judged: int = 0
    first: str = ""

    def leave_out(self, record: ConsumedRecord, why: str) -> None:
        """Count a record that cannot be judged."""
        self.not_judged += 1
        self.first = self.first or f"{record.position}: {why}"


@dataclass(frozen=True, slots=True)
class Selection:
    """What is asked of each record; what is empty asks nothing. Times are milliseconds, `until` exclusive."""

    topics: tuple[str, ...] = ()
    partitions: frozenset[int] = frozenset()
    since_milliseconds: int | None = None
    until_milliseconds: int | None = None
    from_offset: int | None = None
    to_offset: int | None = None
    keys: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()
    headers: Mapping[str, str] = field(default_factory=dict)
    ids: frozenset[str] = frozenset()
    where: str | None = None
    """An expression of CEL about `record` (its fields by name), `key`, `type` and `topic`."""
    function: str | None = None
    """A function of the project, MODULE:FUNCTION, of the decoded record and the record as it lies in its topic."""

    def takes(self, record: ConsumedRecord) -> bool:
        """Return whether a record is wanted, its fields aside."""
        at = record.timestamp_milliseconds
        return (
            # Of topics the ranges say it already; a captured file and an outbox are read whole.
            (not self.topics or record.topic in self.topics)
            and (self.from_offset is None or record.offset >= self.from_offset)
            and (self.to_offset is None or record.offset < self.to_offset)
            and (self.since_milliseconds is None or at >= self.since_milliseconds)
            and (self.until_milliseconds is None or at < self.until_milliseconds)
            and (not self.partitions or record.partition in self.partitions)
            and (not self.keys or (record.key or b"").decode("utf-8", "replace") in self.keys)
            and (not self.types or _is_type(record.header("type"), self.types))
            and (not self.ids or record.header("id") in self.ids)
            and all(record.header(name) == value for name, value in self.headers.items())
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values; `from_json` reads them back."""
        plain = {
            "topics": list(self.topics),
            "partitions": sorted(self.partitions),
            "since_milliseconds": self.since_milliseconds,
            "until_milliseconds": self.until_milliseconds,
            "from_offset": self.from_offset,
            "to_offset": self.to_offset,
            "keys": sorted(self.keys),
            "types": sorted(self.types),
            "headers": dict(self.headers),
            "ids": sorted(self.ids),
            "where": self.where,
            "function": self.function,
        }
        return {name: value for name, value in plain.items() if value not in (None, [], {})}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> "Selection":
        """Return the selection that `to_json` wrote. Raises TypeError for a name that it does not know."""
        if not isinstance(plain, Mapping):
            raise TypeError("it has no selection")
        known = dict(plain)
        for name in ("partitions", "keys", "types", "ids"):
            known[name] = frozenset(known.get(name, ()))
        return cls(**{**known, "topics": tuple(known.get("topics", ()))})


def _is_type(found: str | None, wanted: frozenset[str]) -> bool:
    """Return whether a record's type is one of those named, in full or by its last part."""
    return found is not None and (found in wanted or found.rpartition(".")[2] in wanted)


def compile_predicate(text: str, plain: Callable[[Any], Any], counted: Judged | None = None) -> Predicate:
    """Return the predicate that an expression of CEL says; `plain` gives a decoded record as JSON.

    Raises ConfigurationError for an expression that cannot be read, and where CEL is not installed. An expression that
    cannot be judged for a record (a field that its type does not have) does not hold for it, which is `counted`. The
    predicate raises ConfigurationError where the expression gives something other than true or false.
    """
    counted = Judged() if counted is None else counted
    try:
        import celpy
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "an expression in CEL needs a library that is not installed", next_step="pip install 'towpath[cel]'"
        ) from error
    environment = celpy.Environment()
    try:
        program = environment.program(environment.compile(text))
    except (celpy.CELParseError, TypeError) as error:
        raise ConfigurationError(
            f"the expression cannot be read: {first_line(error)}",
            next_step="write one like: record.total_cents > 100000",
        ) from error

    def holds(decoded: Any, record: ConsumedRecord) -> bool:
        known = {
            "record": plain(decoded),
            "key": (record.key or b"").decode("utf-8", "replace"),
            "type": record.header("type") or "",
            "topic": record.topic,
        }
        try:
            found = program.evaluate({name: celpy.json_to_cel(value) for name, value in known.items()})
        except celpy.CELEvalError as error:
            counted.leave_out(record, str(error.args[0] if error.args else error))
            return False
        if not isinstance(found, bool | celpy.celtypes.BoolType):
            raise ConfigurationError(
                f"the expression gives a {type(found).__name__} for {record.position}, not true or false",
                kept="what was sent before; nothing more was sent",
                next_step="compare it with something: record.total_cents > 100000",
            )
        counted.judged += 1
        return bool(found)

    return holds


def guarded(path: str, function: Callable[..., Any], counted: Judged | None = None) -> Predicate:
    """Return a person's function as a predicate; it raises ConfigurationError where the function raises."""
    counted = Judged() if counted is None else counted

    def holds(decoded: Any, record: ConsumedRecord) -> bool:
        try:
            found = bool(function(decoded, record))
        except Exception as error:
            raise ConfigurationError(
                f"{path} raised {type(error).__name__} for {record.position}: {error}",
                kept="what was sent before; nothing more was sent",
                next_step="fix the function of the decoded record and the record as it lies, and plan again",
            ) from error
        counted.judged += 1
        return found

    return holds


def both(predicates: Sequence[Predicate]) -> Predicate:
    """Return the predicate that holds where all of them hold."""
    return lambda decoded, record: all(predicate(decoded, record) for predicate in predicates)
