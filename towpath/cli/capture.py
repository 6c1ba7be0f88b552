"""Verbs of capture: how Debezium carries the outboxes, whether all arrived, and what to do where it did not."""

import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from towpath.cli import output
from towpath.cli.deciding import user_name
from towpath.errors import ConfigurationError, ExitCode, NotFoundError, RefusedError, WorldError
from towpath.settings import Settings, load_settings

if TYPE_CHECKING:
    from towpath.capture.connect import ConnectorStatus
    from towpath.stream.broker.port import BrokerAway

group = typer.Typer(name="capture", help="Look after the capture of outboxes.", no_args_is_help=True)

CONNECT_SECONDS_WITHOUT_KAFKA = 5.0
"""How long Connect is waited for where Kafka does not answer: then Connect may not, either."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Services = Annotated[list[str] | None, typer.Argument(help="Which services; all, where none is named.")]
Hours = Annotated[float, typer.Option("--hours", min=0.01, help="How far back to look.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    group.command()(status)
    group.command()(restart)
    group.command()(audit)
    group.command("re-emit")(re_emit)
    group.command()(recover)
    group.command()(skip)
    group.command()(skipped)
    group.command()(resend)
    app.add_typer(group)


def status(services: Services = None, as_json: AsJson = False) -> None:
    """Show each service's connector and slot. Exit code 1 where an outbox is not read, or Kafka does not answer."""
    from towpath.capture.connect import ConnectClient
    from towpath.outbox.names import connector_name

    settings = load_settings()
    wanted = _services(settings, services)
    away = _kafka_away(settings)
    seconds = settings.connect.timeout_seconds if away is None else CONNECT_SECONDS_WITHOUT_KAFKA
    rows: list[dict[str, Any]] = []
    silent = False
    with ConnectClient(settings.connect.model_copy(update={"timeout_seconds": seconds})) as connect:
        for service in wanted:
            connector, state, failure = None, "unknown", None
            try:
                if not silent:
                    connector = connect.status(connector_name(settings.project.name, service))
                    state, failure = ("running" if connector.running else connector.state.lower()), connector.failure
            except NotFoundError:
                state, failure = "missing", "Connect does not know it"
            except WorldError:
                if away is None:
                    raise
                silent = True  # for want of Kafka; asked again for each, it would be waited for as often
            rows.append(_row(settings, service, connector, state, failure, away))
    _show(rows, as_json)
    if away or not all(row["read"] and row["connector"] == "running" for row in rows):
        sys.exit(int(ExitCode.FAILED))


def _row(
    settings: Settings,
    service: str,
    connector: "ConnectorStatus | None",
    state: str,
    failure: str | None,
    away: "BrokerAway | None",
) -> dict[str, Any]:
    """Return what is shown of a service. Where its database is away, so is its slot; the others are shown all the same.

    Why its outbox is not read may be for Kafka's sake, for its own, or for both.
    """
    from towpath.capture import postgres
    from towpath.capture.start import next_step
    from towpath.outbox.names import slot_name

    slot, aside = None, 0
    own: str | None
    advice: str | None
    try:
        with postgres.connect(settings, service) as connection:
            slot = postgres.slot_state(connection, slot_name(settings.project.name, service))
            aside = len(postgres.skipped_messages(connection))
    except WorldError as error:
        shown, own, advice = "unknown", error.cause, error.next_step
    else:
        shown = "missing" if slot is None else slot.wal_status
        own = failure or (slot.invalidation_reason if slot else None)
        advice = next_step(service, connector, slot)
    return {
        "service": service,
        "connector": state,
        "slot": shown,
        "read": slot is not None and slot.active,
        "lag_bytes": None if slot is None else slot.lag_bytes,
        "retained_bytes": None if slot is None else slot.retained_bytes,
        "skipped": aside,
        "cause": "; ".join(filter(None, (away.cause if away else None, own))) or None,
        "next": away.next_step if away else advice,
    }


def _kafka_away(settings: Settings) -> "BrokerAway | None":
    """Return that Kafka does not answer, without which nothing is carried; None where it does, or the stack is down."""
    from towpath.stack.broker_away import broker_away
    from towpath.stack.client import SupervisorSilent, running
    from towpath.stack.home import Home

    try:
        statuses = running(Home(settings.stack_home))
    except SupervisorSilent:
        statuses = {}
    return broker_away(settings, statuses) if statuses or not settings.stack.managed else None


def restart(services: Services = None) -> None:
    """Restart the connectors that failed, and wait until their outboxes are read."""
    from towpath.capture.connect import ConnectClient
    from towpath.capture.start import wait_until_captured
    from towpath.outbox.names import connector_name

    settings = load_settings()
    with ConnectClient(settings.connect) as connect:
        for service in _services(settings, services):
            connect.restart(connector_name(settings.project.name, service))
            wait_until_captured(connect, settings, service, timeout_seconds=60.0, restarted=True)
            output.note(f"{service}: its outbox is read")


def audit(services: Services = None, hours: Hours = 24.0, as_json: AsJson = False) -> None:
    """Compare what outboxes hold with what their topics have. Exit code 1 where something did not arrive."""
    settings, since = load_settings(), _since(hours)
    rows = []
    for service in _services(settings, services):
        verdict = _audit(settings, service, since)
        rows += [
            {
                "service": service,
                "topic": topic.topic,
                "written": topic.written,
                "arrived": topic.carried,
                "repeated": topic.repeated,
                "missing": len(topic.missing),
                "certain": verdict.certain or topic.complete,
            }
            for topic in verdict.topics
        ]
    _show(rows, as_json)
    if any(row["missing"] for row in rows):
        for service in dict.fromkeys(row["service"] for row in rows if row["missing"]):
            output.note(f'next: towpath capture re-emit {service} --reason "..."')
        sys.exit(int(ExitCode.FAILED))


def re_emit(
    service: Annotated[str, typer.Argument(help="The service whose messages did not arrive.")],
    reason: Annotated[str, typer.Option(help="Why, for whoever reads the terminal's record.")],
    hours: Hours = 24.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be written, and write nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write anew what an outbox holds and its topics lack, each message with its own id and time.

    For after a lost slot. Consumers that have had one drop it.
    """
    from towpath.capture import postgres

    settings, since = load_settings(), _since(hours)
    _services(settings, [service])
    verdict = _audit(settings, service, since)
    missing = [(topic.topic, id_) for topic in verdict.topics for id_ in topic.missing]
    if missing and not verdict.certain:
        raise RefusedError(
            f"{len(missing)} messages of {service} may still be on their way",
            kept="every message, in the outbox",
            next_step=f"towpath capture status {service} says whether its outbox is read; wait until it has caught up",
        )
    if missing and not dry_run:
        output.ask(f"Write {output.counted(len(missing), 'message')} of {service} anew?", yes=yes)
        with postgres.connect(settings, service) as connection:
            postgres.re_emit(connection, missing, since)
    if as_json:
        output.emit_json({"service": service, "messages": len(missing), "written": not dry_run, "reason": reason})
    else:
        output.note(f"{service}: {len(missing)} messages {'would be' if dry_run else 'were'} written anew ({reason})")


Actor = Annotated[str | None, typer.Option("--actor", help="Who does it; by default the user of this machine.")]
Reason = Annotated[str, typer.Option(help="Why; it is kept beside each message that is stepped over.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what is wrong and what would be done, and do nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
Service = Annotated[str, typer.Argument(help="The service whose outbox it is.")]


def recover(
    service: Service,
    reason: Reason = "capture stood still",
    actor: Actor = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Set capture going again after a lost slot: make it anew, and send what it never carried, in order of commit.

    Consumers that have had a message drop it. Where the outbox is read, nothing is done. Exit code 6 where Kafka
    refuses a message: `towpath capture skip` steps over it.
    """
    _set_going(service, (), actor=actor, reason=reason, dry_run=dry_run, yes=yes, as_json=as_json)


def skip(
    service: Service,
    message: Annotated[UUID, typer.Argument(help="The id of the message that Kafka refuses.")],
    reason: Reason,
    actor: Actor = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Step over one message that Kafka refuses, and let capture go on. It is kept: `towpath capture skipped` shows it.

    Later messages of its key are not held back. Of several that Kafka refuses, each is skipped by its own command:
    exit code 6 names the next. Exit code 5 where the message neither waits to be carried nor was stepped over.
    """
    _set_going(service, (message,), actor=actor, reason=reason, dry_run=dry_run, yes=yes, as_json=as_json)


def skipped(services: Services = None, as_json: AsJson = False) -> None:
    """List the messages that were stepped over and are kept aside, with cause, actor and reason."""
    from towpath.capture import postgres

    settings = load_settings()
    rows: list[dict[str, Any]] = []
    for service in _services(settings, services):
        with postgres.connect(settings, service) as connection:
            rows += [{"service": service, **row} for row in postgres.skipped_messages(connection)]
    if as_json or rows:
        _show(rows, as_json)
    else:
        output.note("nothing is kept aside")


def resend(
    service: Service,
    message: Annotated[UUID, typer.Argument(help="The id of a message that `skipped` lists.")],
    topic: Annotated[str | None, typer.Option(help="Send it to this topic instead of its own.")] = None,
) -> None:
    """Send a message that was stepped over, under its own id and the present time."""
    from towpath.capture import postgres

    settings = load_settings()
    _services(settings, [service])
    with postgres.connect(settings, service) as connection:
        postgres.send_skipped(connection, message, topic)
    output.note(f"{message} is in the outbox of {service} again")


def _set_going(
    service: str, messages: tuple[UUID, ...], *, actor: str | None, reason: str, dry_run: bool, yes: bool, as_json: bool
) -> None:
    from towpath.capture import postgres
    from towpath.capture import recover as recovery
    from towpath.capture.connect import ConnectClient
    from towpath.contract.catalogue import Catalogue

    settings = load_settings()
    _services(settings, [service])
    with ConnectClient(settings.connect) as connect, postgres.connect(settings, service) as connection:
        found = recovery.diagnose(connection, connect, settings, service)
        waiting = {row.id for row in found.uncarried}
        aside = {row["id"] for row in postgres.skipped_messages(connection)}  # by this command, which was killed
        for message in set(messages) - waiting - aside:
            raise NotFoundError(
                f"message {message} of {service} does not wait to be carried",
                kept="everything as it was",
                next_step=f"towpath capture recover {service} --dry-run lists what waits",
            )
        outcome = {
            "service": service,
            "trouble": found.trouble,
            "waiting": len(found.uncarried),
            "refused": [{"id": one.row.id, "topic": one.row.topic, "cause": one.cause} for one in found.refusals],
            "done": False,
        }
        if (waiting.intersection(messages) or not found.reading) and not dry_run:
            output.note(f"{service}: {found.trouble or 'its outbox is read'}; {len(found.uncarried)} messages wait")
            output.ask(f"Stop the connector of {service} and send them anew?", yes=yes)
            try:
                done = recovery.recover(
                    connection, connect, settings, Catalogue.load(settings), service,
                    skip=messages, actor=actor or user_name(), reason=reason,
                )  # fmt: skip
            except KeyboardInterrupt:
                output.note(f"the connector of {service} may be stopped; next: towpath capture recover {service}")
                raise
            outcome |= {"done": True, "slot_made": done.slot_made, "written": done.written, "skipped": done.skipped}
    if as_json:
        output.emit_json(outcome)
    else:
        _tell(outcome)


def _tell(outcome: dict[str, Any]) -> None:
    service = outcome["service"]
    if outcome["done"]:
        made = "its slot was made anew; " if outcome["slot_made"] else ""
        output.note(
            f"{service}: its outbox is read; {made}{outcome['written']} messages were sent anew, "
            f"{outcome['skipped']} stepped over"
        )
        return
    output.note(f"{service}: {outcome['trouble'] or 'its outbox is read'}; {outcome['waiting']} messages wait")
    for one in outcome["refused"]:
        output.note(f"Kafka refuses {one['id']}: {one['cause']}")
        output.note(f'next: towpath capture skip {service} {one["id"]} --reason "..."')
    if outcome["trouble"] and not outcome["refused"]:
        output.note(f"next: towpath capture recover {service}")


def _audit(settings: Settings, service: str, since: datetime) -> Any:
    from towpath.capture.audit import audit as conduct
    from towpath.capture.postgres import connect

    with connect(settings, service) as connection:
        return conduct(connection, settings, service, since)


def _since(hours: float) -> datetime:
    try:
        return datetime.now(UTC) - timedelta(hours=hours)
    except (OverflowError, ValueError) as error:
        raise ConfigurationError(
            f"--hours {hours:g} is further back than the calendar goes",
            next_step="say --hours 100000, which is longer than any outbox keeps messages",
        ) from error


def _services(settings: Settings, wanted: list[str] | None) -> tuple[str, ...]:
    from towpath.stack.config import captured_databases

    known = captured_databases(settings)
    for service in wanted or ():
        if service not in known:
            raise ConfigurationError(f"there is no service {service}", next_step=f"use one of {', '.join(known)}")
    return tuple(wanted or known)


def _show(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        output.emit_json(rows)
        return
    if not rows:
        output.note("nothing was written in that time")
        return
    output.show_rows(rows)
