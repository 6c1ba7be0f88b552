"""Names every change between two moments that is no finding by itself: what is new, gone or otherwise. Pure."""

from collections.abc import Iterator
from dataclasses import fields

from towpath.contract.catalogue import Topic
from towpath.contract.finding import Finding, Severity
from towpath.contract.schema import Field, RecordSchema
from towpath.contract.snapshot import Snapshot


def differences(old: Snapshot, new: Snapshot) -> Iterator[Finding]:
    """Yield each change of topics, records and fields, in words; whether it breaks somebody, `compare` says."""
    for name in sorted(new.records.keys() - old.records.keys()):
        yield _changed(name, "it is new")
    before, after = old.named(), new.named()
    for name in sorted(before.keys() & after.keys()):
        mine, theirs = before[name][1], after[name][1]
        if isinstance(mine, RecordSchema) and isinstance(theirs, RecordSchema):
            yield from _record(before[name][0], mine, theirs)
        elif mine != theirs:
            yield _changed(before[name][0], f"{name}: it is otherwise", place=name.rpartition(".")[2])
    if old.catalogue is not None and new.catalogue is not None:
        for topic in sorted(new.catalogue.topics.keys() - old.catalogue.topics.keys()):
            yield _changed(topic, "it is a new topic")
        for topic in sorted(new.catalogue.topics.keys() & old.catalogue.topics.keys()):
            yield from _topic(old.catalogue.topics[topic], new.catalogue.topics[topic])


def _record(record: str, old: RecordSchema, new: RecordSchema) -> Iterator[Finding]:
    short = new.name.rpartition(".")[2]
    before, after = ({item.name: item for item in schema.fields} for schema in (old, new))
    for name in before.keys() | after.keys():
        place = f"{short}.{name}"
        if name not in before:
            yield _changed(record, f"{place}: it is new", place=place)
        elif name not in after:
            yield _changed(record, f"{place}: it is gone", place=place)
        elif before[name] != after[name]:
            yield _changed(record, f"{place}: {_parts(before[name], after[name])} changed", place=place)


def _parts(old: Field, new: Field) -> str:
    names = [part.name for part in fields(Field) if getattr(old, part.name) != getattr(new, part.name)]
    return ", ".join("documentation" if name == "doc" else name for name in names)


def _topic(old: Topic, new: Topic) -> Iterator[Finding]:
    for part in fields(Topic):
        was, now = getattr(old, part.name), getattr(new, part.name)
        if was != now:
            yield _changed(old.name, f"{part.name}: {_shown(was)} became {_shown(now)}", place=part.name)


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "nothing"
    if value is None:
        return "none"
    return str(getattr(value, "name", value)) or "nothing"


def _changed(subject: str, problem: str, *, place: str = "") -> Finding:
    return Finding("changed", subject, problem, place=place, severity=Severity.NOTE)
