"""`saga signal`: gives a wait its answer.

Tried first, as a dry run, it is taken by the machine itself as its instances stand; the same signal is taken once.
"""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from towpath.cli import output
from towpath.cli.deciding import user_name
from towpath.cli.saga_request_options import WAIT_SECONDS, DryRun, Json, Name, Wait
from towpath.cli.saga_request_report import show_rehearsal
from towpath.cli.saga_room import Room, json_of, own_topic
from towpath.clock import SystemClock, epoch_milliseconds
from towpath.errors import PartlyDoneError, RefusedError
from towpath.settings import Settings, load_settings

if TYPE_CHECKING:
    from towpath.orchestrator.asking import Message
    from towpath.orchestrator.rehearsal import Rehearsed


def register(saga_app: typer.Typer) -> None:
    """Add the verb to `saga`."""
    saga_app.command()(signal)


def signal(
    name: Name,
    key: Annotated[str, typer.Argument(help="The business key of the instance that waits.")],
    type_: Annotated[str, typer.Argument(metavar="TYPE", help="The record that the wait takes, OrderApproved say.")],
    json_value: Annotated[str, typer.Option("--value", help="The record as JSON, held against its contract.")] = "{}",
    like: Annotated[bool, typer.Option("--like", help="Fill what is left out from the contract's example.")] = False,
    signal_id: Annotated[str | None, typer.Option("--id", help="Its id; the same id is taken once.")] = None,
    wait: Wait = WAIT_SECONDS,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Give a wait its answer: an event, or what a person decided."""
    from towpath.orchestrator import envelope
    from towpath.orchestrator.asking import Answers, send
    from towpath.orchestrator.requests import signal_id as id_of_signal

    json_of(json_value)
    settings = load_settings()
    taken = _taken(settings, name, type_)
    room = Room(settings, name)
    topic = own_topic(room.settings, room.catalogue, name, envelope.SIGNALS)
    record = room.record(type_, json_value, like=like, among=taken)
    id_ = signal_id or str(id_of_signal(name, key, record))
    headers = envelope.headers_of(id=id_, type=record.SCHEMA_NAME)
    message = (topic.name, key.encode(), room.codec.encode(record), headers)
    if dry_run:
        about = {"topic": topic.name, "key": key, "type": record.SCHEMA_NAME, "id": id_}
        show_rehearsal(name, about, _rehearsed(room, key, message), as_json=as_json)
        return
    answers = Answers(room.broker, room.codec, name, SystemClock())
    try:
        mine = room.transactional_id(user_name(), "signal", id_)
        send(room.broker, [message], transactional_id=mine, sleep=time.sleep)
        found = list(answers.wait([id_], seconds=wait)) if wait > 0 else []
    finally:
        answers.close()
    shown = {
        "signal": type_,
        "key": key,
        "id": id_,
        "outcome": ("sent" if not found else "applied" if found[0].refusal is None else "refused"),
        "reason": found[0].refusal if found else None,
        "status": found[0].status if found else None,
    }
    output.emit_json(shown) if as_json else output.show_rows([shown])
    if found and found[0].refusal is not None:
        raise RefusedError(
            f"the signal was refused: {found[0].refusal}",
            kept="the saga, as it was",
            next_step=f"towpath saga show {name} {key}",
        )
    if not found and wait > 0:
        raise PartlyDoneError(
            "it is sent and not answered yet",
            kept="the signal, in its topic; one that comes before its saga is kept for it",
            next_step=f"towpath saga show {name} {key}, and towpath status to see whether the saga's worker runs",
        )


def _taken(settings: Settings, saga: str, type_: str) -> list[str]:
    """Return the records that the waits of a saga take, by their full names, `type_` among them.

    Raises ConfigurationError for another one; of a saga that the project does not have it knows none.
    """
    from towpath.client.saga import takes_no_signal
    from towpath.orchestrator.mapping import wire_name
    from towpath.project import load_sagas

    sagas = load_sagas(settings)
    signals = {kind for definition in sagas.get(saga, {}).values() for kind in definition.signals}
    short = {name: name.rpartition(".")[2] for name in map(wire_name, signals)}
    if saga in sagas and type_ not in {*short, *short.values()}:
        raise takes_no_signal(saga, type_, short.values())
    return list(short)


def _rehearsed(room: Room, key: str, message: "Message") -> "Rehearsed":
    """Return what the project's definitions would make of a signal to `key`, as its instances stand now."""
    from towpath.cli.saga_reading import InstanceReader
    from towpath.orchestrator import envelope
    from towpath.orchestrator.rehearsal import rehearse
    from towpath.project import load_sagas
    from towpath.stream.broker.record import ConsumedRecord
    from towpath.stream.broker.record_limits import RecordLimits

    topic, encoded, value, headers = message
    record = ConsumedRecord(topic, 0, 0, epoch_milliseconds(SystemClock()), encoded, value, headers)
    return rehearse(
        load_sagas(room.settings)[room.saga],
        room.codec,
        record,
        InstanceReader(room.settings).state_of_key(room.saga, key),
        history_topic=envelope.topic_of(room.saga, envelope.HISTORY),
        limits=RecordLimits(room.catalogue.message_bytes_max()),
    )
