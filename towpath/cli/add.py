"""`towpath add`: one more part of a project. It writes what is missing and nothing else, and says what to edit next."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from towpath.cli import output
from towpath.errors import ConfigurationError, NotFoundError, TowpathError
from towpath.settings import Settings, load_settings

if TYPE_CHECKING:
    from towpath.contract.files import Contracts
    from towpath.scaffold.parts import Asked, Part
    from towpath.scaffold.records import FieldSpec

add_app = typer.Typer(
    help="One more part of the project: a service, saga, record, topic of events, or view.", no_args_is_help=True
)
AsJson = Annotated[bool, typer.Option("--json", help="Name the files as JSON.")]
KEY = "order_id"
"""What records are about, where the project has no topic yet that says so."""


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    app.add_typer(add_app, name="add")


@add_app.command()
def service(name: Annotated[str, typer.Argument(help="Its name: lower case.")], as_json: AsJson = False) -> None:
    """Add a service that answers one command and its undo, with its records and its table."""
    from towpath.scaffold.parts import Part, service_part
    from towpath.scaffold.records import require_name

    settings = load_settings()
    part = service_part(require_name(name, "service"), _Known.of(settings).key)
    if (settings.root / "pipelines" / "services" / name).exists():
        part = Part({}, edit=part.edit)  # it has records of its own by now
    _write(settings, part, as_json=as_json)


@add_app.command()
def saga(
    name: Annotated[str, typer.Argument(help="Its name: lower case.")],
    asks: Annotated[
        list[str] | None, typer.Option("--asks", help="A service that it asks; may be repeated. By default all.")
    ] = None,
    starts_in: Annotated[
        str | None, typer.Option("--starts-in", help="The service that starts it; by default the first with events.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add a saga that asks services what they answer already, in turn, and undoes it; and the event that starts it."""
    from towpath.scaffold.parts import Part, saga_part
    from towpath.scaffold.records import field_of, require_name

    settings = load_settings()
    known = _Known.of(settings)
    require_name(name, "saga")
    path = Path("sagas") / f"{name}.py"
    if (settings.root / path).exists():
        _write(settings, Part({}, edit=(f"{path}: its steps",)), as_json=as_json)
        return
    asked = _asked(settings, known, asks)
    if starts_in is not None and starts_in not in known.services(settings):
        raise NotFoundError(
            f"there is no service {starts_in!r}",
            kept="the project as it was",
            next_step=f"towpath add service {starts_in}",
        )
    place = starts_in or known.first_service
    _write(settings, saga_part(name, settings.project.name, place, field_of(known.key), asked), as_json=as_json)


@add_app.command()
def record(
    name: Annotated[str, typer.Argument(help="Service and record, as in order.OrderPacked.")],
    fields: Annotated[
        list[str] | None, typer.Argument(help="name:type, as in parcels:int; by default the key alone.")
    ] = None,
    topic: Annotated[str | None, typer.Option("--topic", help="The topic of events that carries it.")] = None,
    doc: Annotated[str, typer.Option("--doc", help="What it says.")] = "",
    as_json: AsJson = False,
) -> None:
    """Add a record with an example. Types: boolean, int, long, double, string, bytes, time, date, uuid; [] and ?."""
    from towpath.scaffold.parts import Part
    from towpath.scaffold.plan import avro_path
    from towpath.scaffold.records import RecordSpec, parse_fields, split_record

    settings = load_settings()
    known = _Known.of(settings)
    place, short = split_record(name)
    made = RecordSpec(place, short, doc or f"{short}, of {place}.", parse_fields(fields or [known.key]))
    values = {} if topic is None else {_events(topic): (made.full_name(settings.project.name),)}
    keys = {} if topic is None else {topic: made.fields[0].name}
    edit = (f"{avro_path(made)}: what its fields mean", f"schemas/examples/{place}.json: a record as it really is")
    there = (settings.root / avro_path(made)).exists()
    if there and fields:
        written = [one.name for one in known.contracts.schemas.record(made.full_name(settings.project.name)).fields]
        if written != [one.name for one in made.fields]:
            output.note(f"{avro_path(made)} has other fields and stays as it is: {', '.join(written)}")
    carried = (
        ()
        if topic or there
        else ("who sends it: a step, a handler, or --topic SERVICE.events: it travels nowhere yet",)
    )
    _write(settings, Part({}, (made,), values, keys, (*edit, *carried)), as_json=as_json)


@add_app.command()
def topic(
    name: Annotated[str, typer.Argument(help="A topic of events, as in shipping.events; all others are derived.")],
    key: Annotated[str | None, typer.Option("--key", help="The field that is its key.")] = None,
    as_json: AsJson = False,
) -> None:
    """Add a topic of events; it carries the records of its service that travel nowhere yet."""
    from towpath.scaffold.parts import Part

    settings = load_settings()
    known = _Known.of(settings)
    owner = _events(name).partition(".")[0]
    edit = (f"schemas/topics/{name}.yaml: what it says, and what else it carries",)
    if name in known.topics:
        _write(settings, Part({}, edit=edit), as_json=as_json)
        return
    free = known.free_records(settings, owner, name)
    if not free:
        raise NotFoundError(
            f"every record of {owner} travels already, so {name} would carry nothing",
            kept="the project as it was",
            next_step=f"towpath add record {owner}.NAME --topic {name}",
        )
    chosen = key or (known.key if all(known.key in names for names in free.values()) else next(iter(free.values()))[0])
    _write(settings, Part({}, values={name: tuple(free)}, keys={name: chosen}, edit=edit), as_json=as_json)


@add_app.command()
def view(
    name: Annotated[str, typer.Argument(help="Its name: lower case.")],
    topic: Annotated[
        str | None, typer.Option("--topic", help="The topic that it folds; by default the first of events.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Add a view that folds a topic of events into a table: a row for each key."""
    from towpath.scaffold.parts import view_part
    from towpath.scaffold.records import require_name

    settings = load_settings()
    known = _Known.of(settings)
    require_name(name, "view")
    chosen = topic or known.first_events
    if chosen not in known.topics:
        listed = ", ".join(known.topics) or "none yet"
        raise NotFoundError(f"there is no topic of events {chosen!r}", next_step=f"one of: {listed}")
    content = known.topics[chosen]
    classes: dict[str, list[str]] = {}
    for value in content["values"]:
        module = known.contracts.module_of(value)
        classes.setdefault(module, []).append(known.contracts.class_names(module)[value])
    key_type = known.python_type(content["values"][0], content["key"])
    _write(settings, view_part(name, chosen, content["key"], key_type, classes), as_json=as_json)


def _events(topic: str) -> str:
    service, _, kind = topic.partition(".")
    if kind != "events" or not service:
        raise ConfigurationError(
            f"{topic!r} is no topic of events: those are called <service>.events, and all others are derived",
            next_step="name <service>.events; the others: towpath contracts generate",
        )
    return topic


@dataclass(frozen=True, slots=True)
class _Known:
    """What the project has: its schemas, and its topics of events as their files say them."""

    contracts: "Contracts"
    topics: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, settings: Settings) -> "_Known":
        from towpath.contract.catalogue import declared_files, read_file
        from towpath.contract.files import load_contracts, schema_sets
        from towpath.derived_topics import topics_folder

        read = {path.stem: read_file(path) for path in declared_files(topics_folder(settings))}
        topics = {
            name: {**content, "values": [str(value) for value in content.get("values") or ()]}
            for name, content in read.items()
            if isinstance(content, dict) and name.endswith(".events") and content.get("values")
        }
        return cls(load_contracts(schema_sets(settings)), topics)

    @property
    def first_events(self) -> str:
        """Return the topic of events that the project's first saga most likely starts from."""
        return next(iter(self.topics), "order.events")

    @property
    def first_service(self) -> str:
        return self.first_events.partition(".")[0]

    def services(self, settings: Settings) -> set[str]:
        """Return who has a database that a saga may start in, be it a service or an application."""
        from towpath.project import load_services

        return {*load_services(settings), *settings.postgres.urls, *(one.partition(".")[0] for one in self.topics)}

    @property
    def key(self) -> str:
        """Return what the project's records are about."""
        return str(self.topics[self.first_events]["key"]) if self.topics else KEY

    def free_records(self, settings: Settings, service: str, topic: str) -> dict[str, list[str]]:
        """Return the fields of each record of `service` that travels in no topic but `topic` and is nobody's reply.

        The derived file is that of before: it may still have what a topic carried whose own file is gone.
        """
        from towpath.contract.catalogue import Catalogue
        from towpath.contract.schema import RecordSchema
        from towpath.parties import load_parties

        catalogue = Catalogue.load(settings)
        answers = [one for party in load_parties(settings, catalogue).by_name.values() for one in party.answers]
        others = [one for name, one in catalogue.topics.items() if name not in (topic, f"{topic}.dead")]
        values = {value for one in others for value in one.values}
        taken = {name for value in values for name in self.contracts.schemas.reachable(value)}
        taken |= {reply for one in answers for reply in one.succeeds | one.fails}
        own = [
            name for loaded in self.contracts.sets if loaded.source.is_package for name in loaded.of_service(service)
        ]
        schemas = {name: self.contracts.schemas[name] for name in own if name not in taken}
        return {name: [f.name for f in one.fields] for name, one in schemas.items() if isinstance(one, RecordSchema)}

    def python_type(self, record: str, field: str) -> str:
        """Return the type of a key in Python."""
        from towpath.contract.schema import Primitive

        type_ = next(one.type for one in self.contracts.schemas.record(record).fields if one.name == field)
        return "int" if isinstance(type_, Primitive) and type_.name in {"int", "long"} else "str"


def _asked(settings: Settings, known: _Known, names: Sequence[str] | None) -> list["Asked"]:
    """Return, of each service, the first command that can be undone, else its first one, with what belongs to it."""
    from towpath.contract.examples import good_examples
    from towpath.project import load_services
    from towpath.scaffold.parts import Asked

    services = load_services(settings)
    names = list(dict.fromkeys(names or ()))
    unknown = [name for name in names if name not in services]
    if unknown:
        raise NotFoundError(f"there is no service {unknown[0]!r}", next_step=f"towpath add service {unknown[0]}")
    shown = good_examples(known.contracts, settings)
    asked = []
    for name in names or services:
        handlings = list(services[name].handlings.values())
        undos = {one.of: one for one in handlings if one.of is not None}
        do = next((one for one in handlings if one.command in undos), next(iter(handlings), None))
        if do is None:
            continue
        undo = undos.get(do.command)
        asked.append(
            Asked(
                service=name,
                module=do.command.__module__,
                command=do.command.__name__,
                succeeds=_names(do.succeeds),
                fails=_names(do.fails),
                fields=_fields(known, do.command.SCHEMA_NAME, shown),
                undo=undo.command.__name__ if undo else "",
                undone=_names(undo.succeeds) if undo else (),
                undo_fields=_fields(known, undo.command.SCHEMA_NAME, shown) if undo else (),
            )
        )
    return asked


def _names(kinds: Iterable[type]) -> tuple[str, ...]:
    return tuple(sorted(kind.__name__ for kind in kinds))


def _fields(known: _Known, record: str, shown: Mapping[str, list[Any]]) -> tuple["FieldSpec", ...]:
    """Return the fields of a record as its file says them, each with a value from an example, or one at random.

    `shown` has the good examples, by record.
    """
    import json
    from random import Random

    from towpath.contract.files import ends_with
    from towpath.contract.json_form import write_json
    from towpath.contract.sample import sample
    from towpath.scaffold.records import FieldSpec

    schemas = known.contracts.schemas
    content = json.loads(known.contracts.path_of(record).read_text(encoding="utf-8"))
    defined = content if isinstance(content, list) else [content]
    written = next(one for one in defined if ends_with(record, one["name"]))
    seen = shown[record][0] if record in shown else write_json(schemas, record, sample(schemas, record, Random(record)))  # noqa: S311
    return tuple(
        FieldSpec(field["name"], field["type"], seen.get(field["name"]), field.get("doc", ""))
        for field in written["fields"]
    )


def _write(settings: Settings, part: "Part", *, as_json: bool) -> None:
    from towpath.cli.follow import write_what_follows
    from towpath.scaffold.writing import write_part

    written = list(write_part(settings.root, settings.project.name, part))
    try:
        written += write_what_follows(load_settings(settings.root, environment=False))
    except TowpathError as error:
        if written and error.kept is None:
            error.kept = f"what was written: {', '.join(path.as_posix() for path in written)}"
        raise
    if as_json:
        output.emit_json({"written": [path.as_posix() for path in written], "edit": list(part.edit)})
        return
    for path in written:
        output.results.print(path.as_posix(), highlight=False, soft_wrap=True)
    if not written:
        output.note("it is all there already, and stays as it is: options are for what is new")
    for line in part.edit:
        output.note(f"edit {line}" if ": " in line and "/" in line.partition(":")[0] else line)
