"""Verbs of capture: how Debezium carries the outboxes, whether all arrived, and what to do where it did not."""

import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from towpath.cli import output
from towpath.errors import ConfigurationError, ExitCode, NotFoundError, RefusedError
from towpath.settings import Settings, load_settings

group = typer.Typer(name="capture", help="Look after the capture of outboxes.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Services = Annotated[list[str] | None, typer.Argument(help="Which services; all, where none is named.")]
Hours = Annotated[float, typer.Option("--hours", min=0.01, help="How far back to look.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    group.command()(status)
    group.command()(restart)
    group.command()(audit)
    group.command("re-emit")(re_emit)
    app.add_typer(group)


def status(services: Services = None, as_json: AsJson = False) -> None:
    """Show each service's connector and slot. Exit code 1 where an outbox is not read."""
    from towpath.capture import postgres
    from towpath.capture.connect import ConnectClient
    from towpath.outbox.names import connector_name, slot_name

    settings = load_settings()
    rows: list[dict[str, Any]] = []
    with ConnectClient(settings.connect) as connect:
        for service in _services(settings, services):
            name = connector_name(settings.project.name, service)
            try:
                connector = connect.status(name)
                state, failure = ("running" if connector.running else connector.state.lower()), connector.failure
            except NotFoundError:
                state, failure = "missing", "towpath up, or towpath provision, makes it"
            with postgres.connect(settings, service) as connection:
                slot = postgres.slot_state(connection, slot_name(settings.project.name, service))
            rows.append(
                {
                    "service": service,
                    "connector": state,
                    "slot": "missing" if slot is None else slot.wal_status,
                    "read": slot is not None and slot.active,
                    "lag_bytes": None if slot is None else slot.lag_bytes,
                    "retained_bytes": None if slot is None else slot.retained_bytes,
                    "cause": failure or (slot.invalidation_reason if slot else None),
                }
            )
    _show(rows, as_json)
    if not all(row["read"] for row in rows):
        sys.exit(int(ExitCode.FAILED))


def restart(services: Services = None) -> None:
    """Restart the connectors that failed, and wait until their outboxes are read."""
    from towpath.capture.connect import ConnectClient
    from towpath.capture.start import wait_until_captured
    from towpath.outbox.names import connector_name

    settings = load_settings()
    with ConnectClient(settings.connect) as connect:
        for service in _services(settings, services):
            connect.restart(connector_name(settings.project.name, service))
            wait_until_captured(connect, settings, service, timeout_seconds=60.0)
            output.note(f"{service}: its outbox is read")


def audit(services: Services = None, hours: Hours = 24.0, as_json: AsJson = False) -> None:
    """Compare what outboxes hold with what their topics have. Exit code 1 where something did not arrive."""
    settings = load_settings()
    rows = []
    for service in _services(settings, services):
        verdict = _audit(settings, service, hours)
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
        output.note("next: towpath capture re-emit SERVICE, if what is missing is certain")
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

    settings = load_settings()
    _services(settings, [service])
    verdict = _audit(settings, service, hours)
    missing = [id for topic in verdict.topics for id in topic.missing]  # noqa: A001 - the header's name
    if missing and not verdict.certain:
        raise RefusedError(
            f"{len(missing)} messages of {service} may still be on their way",
            kept="every message, in the outbox",
            next_step="towpath capture status; wait until the slot has caught up",
        )
    if missing and not dry_run:
        output.ask(f"Write {len(missing)} messages of {service} anew?", yes=yes)
        with postgres.connect(settings, service) as connection:
            postgres.re_emit(connection, missing, _since(hours))
    if as_json:
        output.emit_json({"service": service, "messages": len(missing), "written": not dry_run, "reason": reason})
    else:
        output.note(f"{service}: {len(missing)} messages {'would be' if dry_run else 'were'} written anew ({reason})")


def _audit(settings: Settings, service: str, hours: float) -> Any:
    from towpath.capture.audit import audit as conduct
    from towpath.capture.postgres import connect

    with connect(settings, service) as connection:
        return conduct(connection, settings, service, _since(hours))


def _since(hours: float) -> datetime:
    return datetime.now(UTC) - timedelta(hours=hours)


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
