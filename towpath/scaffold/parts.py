"""The files of one more part of a project: a service, a saga, a view, a topic of events, a record. Pure.

The rule: a part is complete as it is written. Contracts and proof hold with it, and it runs; what remains is to give it
the names and the rules of one's business.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from towpath.errors import RefusedError
from towpath.scaffold.plan import avro_path, render, service_init
from towpath.scaffold.records import FieldSpec, RecordSpec, class_name, field_of

_LINE_MAX: Final = 120


@dataclass(frozen=True, slots=True)
class Part:
    """What one `towpath add` writes: texts by path, records with examples, values of topics; and what to edit next."""

    files: Mapping[str, str]
    records: tuple[RecordSpec, ...] = ()
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Full names of records to list, by the topic of events that is to carry them."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """The key of each of those topics, where it does not exist yet."""
    edit: tuple[str, ...] = ()
    """What to edit next, a line each."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A command that a saga can ask of a service: short names of records, `module` of their classes.

    `fields` are those that the command and its undo have; `undo` and `undone` are empty where there is no undo.
    """

    service: str
    module: str
    command: str
    succeeds: tuple[str, ...]
    fails: tuple[str, ...]
    fields: tuple[FieldSpec, ...]
    undo: str = ""
    undone: tuple[str, ...] = ()
    undo_fields: tuple[FieldSpec, ...] = ()


def service_part(name: str, key: str) -> Part:
    """Return a service with one command and its undo, its table, and their records; `key` is that of the sagas."""
    noun = class_name(name)
    known = field_of(key, "What it is about.")
    records = tuple(
        RecordSpec(name, record, doc, (known, *more))
        for record, doc, more in (
            (f"Prepare{noun}", f"Ask {name} to do its part.", ()),
            (f"{noun}Prepared", "It is done.", ()),
            (f"{noun}Refused", "Nothing was done.", (field_of("reason", "Why, in words."),)),
            (f"Cancel{noun}", "Take it back.", ()),
            (f"{noun}Cancelled", "It is taken back.", ()),
        )
    )
    folder = f"pipelines/services/{name}"
    files = {
        f"{folder}/__init__.py": service_init(name),
        f"{folder}/service.py": render(
            "part/service.py",
            name=name,
            noun=noun,
            key=key,
            imports=_import(f"schemas.records.{name}", [record.name for record in records]),
        ),
        f"infra/postgres/{name}.sql": render("part/service.sql", name=name, key=key),
    }
    edit = (
        f"{folder}/service.py: what it does with a command",
        f"infra/postgres/{name}.sql: its tables",
        f"schemas/avro/{name}: its records",
        f"a saga that asks it: towpath add saga NAME --asks {name}",
    )
    return Part(files, records, edit=edit)


def view_part(name: str, topic: str, key: str, key_type: str, classes: Mapping[str, Sequence[str]]) -> Part:
    """Return a view of a topic; `classes` are those of its records, by module. `key_type` is the key's in Python."""
    path = f"pipelines/views/{name}.py"
    text = render(
        "part/view.py",
        name=name,
        noun=class_name(name),
        topic=topic,
        key=key,
        key_type=key_type,
        imports=[_import(module, found) for module, found in sorted(classes.items())],
        events=sorted(one for found in classes.values() for one in found),
    )
    return Part({path: text}, edit=(f"{path}: what a row holds, and how an event changes it",))


def saga_part(name: str, project: str, starts_in: str, key: FieldSpec, asked: Sequence[Asked]) -> Part:
    """Return a saga that asks each of `asked` in turn, and the event of the service `starts_in` that starts it.

    Raises RefusedError where there is nothing to ask, or two fields of one name have different types.
    """
    if not asked:
        raise RefusedError(
            "no service answers a command yet", kept="the project as it was", next_step="towpath add service NAME"
        )
    ordered = _ordered(asked)
    start = f"{class_name(name)}Requested"
    fields = _fields(key, ordered)
    record = RecordSpec(starts_in, start, f"Somebody asked for it. It starts the saga {name}.", fields)
    steps, functions = [], []
    pivot = False
    for one in ordered:
        verb = "step" if one.undo else "retriable" if pivot else "pivot"
        pivot = pivot or not one.undo
        functions += [(one.command, one.fields), *([(one.undo, one.undo_fields)] if one.undo else [])]
        steps.append(
            {
                "key": f"{one.service}_done",
                "verb": verb,
                "service": one.service,
                "do": _snake(one.command),
                "undo": _snake(one.undo),
                "undone": _classes(one.undone),
                "succeeds": _classes(one.succeeds),
                "fails": _classes(one.fails) if verb != "retriable" else "",
            }
        )
    imports: dict[str, set[str]] = {f"schemas.records.{starts_in}": {start}}
    for one in ordered:
        names = {one.command, *one.succeeds, *one.fails, one.undo, *one.undone} - {""}
        imports.setdefault(one.module, set()).update(names)
    words = {"Participant", "Saga", "days", "seconds"} | ({"Undo"} if any(one.undo for one in ordered) else set())
    path = f"sagas/{name}.py"
    text = render(
        "part/saga.py",
        name=name,
        start=start,
        imports=[_import(module, names) for module, names in sorted(imports.items())],
        words=sorted(words, key=lambda word: (word.islower(), word)),
        functions=[
            {"name": _snake(command), "command": command, "fields": [one.name for one in fields_]}
            for command, fields_ in functions
        ],
        steps=steps,
    )
    topic = f"{starts_in}.events"
    return Part(
        {path: text},
        (record,),
        {topic: (record.full_name(project),)},
        {topic: key.name},
        (
            f"{path}: its steps, in the order of your business",
            f"{avro_path(record)}: what it starts with",
            f"where it starts: client.start(connection, {name!r}, key, {start}(...), event_id=...)",
        ),
    )


def _ordered(asked: Sequence[Asked]) -> list[Asked]:
    """Return what can be undone first: the rest is at and behind the point of no return, where nothing may refuse."""
    undoable = [one for one in asked if one.undo]
    final = [one for one in asked if not one.undo]
    return [*undoable, *sorted(final, key=lambda one: not one.fails)]


def _fields(key: FieldSpec, asked: Sequence[Asked]) -> tuple[FieldSpec, ...]:
    found = {key.name: key}
    for one in asked:
        for field_ in (*one.fields, *one.undo_fields):
            known = found.setdefault(field_.name, field_)
            if known.type != field_.type:
                raise RefusedError(
                    f"{one.command} and another command have a field {field_.name} of different types",
                    kept="the project as it was",
                    next_step="ask fewer services: towpath add saga NAME --asks SERVICE",
                )
    return tuple(found.values())


def _import(module: str, names: Iterable[str]) -> str:
    """Return the import of `names`, on one line where it fits."""
    line = f"from {module} import {', '.join(sorted(names))}"
    if len(line) <= _LINE_MAX:
        return line
    listed = "".join(f"    {name},\n" for name in sorted(names))
    return f"from {module} import (\n{listed})"


def _classes(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"({', '.join(names)})" if names else ""


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")
