"""The steps of a recovery on a real PostgreSQL: what the slot carries then, wherever it was ended and whoever writes.

Kafka and Connect are told here: what the topics have, and how the connector fares. `test_recover.py` has the real ones.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from pydantic import SecretStr

from tests.integration.conftest import RunningStack
from tests.next_steps import step_in
from towpath.capture import kafka, postgres
from towpath.capture import recover as recovery
from towpath.capture.connect import ConnectorStatus, TaskStatus
from towpath.cli import capture as cli
from towpath.contract.catalogue import Catalogue
from towpath.errors import ConfigurationError, ExitCode, NotFoundError, RefusedError, WorldError
from towpath.outbox.message import OutboxMessage
from towpath.outbox.names import slot_name
from towpath.outbox.postgres import apply_outbox_schema, ensure_slot, write
from towpath.settings import OutboxSettings, PostgresSettings, Settings

pytestmark = pytest.mark.stack
SERVICE = "catalog"
_INSERTS = """
SELECT data FROM pg_logical_slot_peek_binary_changes(
  %s, NULL, NULL, 'proto_version', '1', 'publication_names', 'towpath_outbox') WHERE get_byte(data, 0) = 73
"""


@dataclass
class ToldConnect:
    """Kafka Connect, as far as recovery asks it."""

    state: str = "FAILED"
    killed_at: str = ""

    def __enter__(self) -> "ToldConnect":
        return self

    def __exit__(self, *_: object) -> None: ...

    def apply(self, _: Any) -> bool:
        return False

    def stop(self, *_: Any) -> None:
        self.state = "STOPPED"

    def forget_position(self, _: str) -> None:
        if self.killed_at == "forget_position":
            raise KeyboardInterrupt

    def resume(self, _: str) -> None:
        self.state = "RUNNING"

    def status(self, name: str) -> ConnectorStatus:
        trace = "org.apache.kafka.common.errors.RecordTooLargeException: too large" if self.state == "FAILED" else None
        tasks = () if self.state == "STOPPED" else (TaskStatus(0, self.state, "w", trace),)
        return ConnectorStatus(name, "STOPPED" if self.state == "STOPPED" else "RUNNING", "w", tasks)


@dataclass
class Stand:
    """A database with outbox and slot. `topics` are Kafka's with their settings, `carried` what lies in each."""

    settings: Settings
    connection: postgres.Connection
    slot: str
    topics: dict[str, dict[str, str]]
    connect: ToldConnect = field(default_factory=ToldConnect)
    carried: dict[str, Counter[UUID]] = field(default_factory=dict)

    def write(self, *messages: OutboxMessage) -> None:
        """Commit messages."""
        with self.connection.transaction():
            write(self.connection, messages)

    def insert(self, created_at: datetime, topic: str = "t") -> UUID:
        """Commit a row of that time."""
        id_ = uuid4()
        self.connection.execute(
            "INSERT INTO outbox (id, topic, key, type, payload, created_at) VALUES (%s, %s, 'o-1', 'T', 'x', %s)",
            (id_, topic, created_at.astimezone(UTC).replace(tzinfo=None)),
        )
        return id_

    def recover(self, *skip: UUID) -> recovery.Recovery:
        """Recover, as the command line does."""
        with postgres.connect(self.settings, SERVICE) as connection:
            return recovery.recover(
                connection, self.connect, self.settings, Catalogue.load(self.settings), SERVICE,  # type: ignore[arg-type]
                skip=skip, actor="ann", reason="r",
            )  # fmt: skip

    def carries(self, *messages: OutboxMessage) -> list[int]:
        """Return what the slot would carry of `messages`, in its order: the place of each among them."""
        rows = [bytes(data) for (data,) in self.connection.execute(_INSERTS, (self.slot,)).fetchall()]
        return [place for row in rows for place, one in enumerate(messages) if begins_with(one.id, one.topic) in row]

    def kept(self) -> set[tuple[str, UUID]]:
        """Return what was stepped over."""
        return {(row["topic"], row["id"]) for row in postgres.skipped_messages(self.connection)}


def begins_with(*columns: object) -> bytes:
    """Return columns as pgoutput sends them, each with its length."""
    values = [str(value).encode() for value in columns]
    return b"".join(b"t" + len(value).to_bytes(4, "big") + value for value in values)


@pytest.fixture
def stand(stack: RunningStack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stand]:
    """Return a database with an outbox and a slot that nobody reads, also to the command line."""
    project = f"t{uuid4().hex[:10]}"
    url = f"{stack.settings.postgres.url}/{project}"
    settings = stack.settings.model_copy(
        update={
            "project": stack.settings.project.model_copy(update={"name": project}),
            "postgres": stack.settings.postgres.model_copy(update={"urls": {SERVICE: SecretStr(url)}}),
        }
    )
    with psycopg.connect(f"{stack.settings.postgres.url}/postgres", autocommit=True) as administrator:
        administrator.execute(f"CREATE DATABASE {project}")
        with psycopg.connect(url, autocommit=True) as connection:
            apply_outbox_schema(connection, PostgresSettings(), OutboxSettings())
            connection.execute("CREATE TABLE carried (weight int)")  # a service's own, of a name that recovery uses too
            slot = slot_name(project, SERVICE)
            ensure_slot(connection, slot)
            found = Stand(settings, connection, slot, {"t": {}, "u": {}})
            monkeypatch.setattr(kafka, "ensure_heartbeat_topics", lambda *_: None)
            monkeypatch.setattr(kafka, "carried_ids", lambda *_: found.carried)
            monkeypatch.setattr(kafka, "topic_settings", lambda *_: found.topics)
            monkeypatch.setattr(recovery, "wait_until_captured", lambda *_, **__: None)
            monkeypatch.setattr(cli, "load_settings", lambda: settings)
            monkeypatch.setattr(cli, "_services", lambda _, wanted: tuple(wanted))
            monkeypatch.setattr("towpath.capture.connect.ConnectClient", lambda *_: found.connect)
            yield found
            connection.execute(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", (slot,)
            )
        administrator.execute(f"DROP DATABASE {project} WITH (FORCE)")


def message(topic: str = "t", **columns: Any) -> OutboxMessage:
    """Return a message."""
    return OutboxMessage(**{"id": uuid4(), "topic": topic, "key": "o-1", "type": "T", "payload": b"\0", **columns})


TOO_LARGE: dict[str, Any] = {"payload": b"x" * 20_000}


def test_messages_that_kafka_refuses_are_stepped_over_one_by_one(stand: Stand) -> None:
    """Each by its own command, which names the next; what was named stays aside whatever follows."""
    stand.topics["t"] = {"max.message.bytes": "10000"}  # lowered since
    bad = [message(**TOO_LARGE) for _ in range(3)]
    after = message()
    stand.write(*bad, after)
    for one, following in pairwise(bad):
        with pytest.raises(RefusedError, match=str(following.id)) as named:
            stand.recover(one.id)
        assert step_in(str(named.value), "capture skip x x --reason ...")[2:4] == [SERVICE, str(following.id)]
        assert ("t", one.id) in stand.kept()
        assert stand.connect.state == "STOPPED"
    assert stand.recover(bad[-1].id).skipped == 1
    assert stand.kept() == {("t", one.id) for one in bad}
    assert stand.connect.state == "RUNNING"
    assert stand.carries(*bad, after) == [3]


def test_one_id_in_two_topics_is_sent_to_both(stand: Stand) -> None:
    """`client.start` takes the caller's id: one event, two sagas. One that arrived says nothing of the other."""
    first = message()
    both = first, message("u", id=first.id)
    stand.write(*both)
    stand.recover()
    assert stand.carries(*both) == [0, 1]
    stand.carried = {"t": Counter([first.id])}
    assert stand.recover().written == 1
    assert stand.carries(*both) == [1]
    postgres.re_emit(stand.connection, [("u", first.id)], datetime.now(UTC) - timedelta(hours=1))
    assert stand.carries(*both) == [1, 1]


@pytest.mark.parametrize("refused", ["t", "t u"])
def test_of_one_id_in_two_topics_what_is_refused_is_stepped_over_and_all_of_it_kept(stand: Stand, refused: str) -> None:
    """Also in a database that knew what was stepped over by its id alone, once its schema is applied."""
    stand.connection.execute("DROP INDEX outbox_skipped_known_by")
    stand.connection.execute("ALTER TABLE outbox_skipped ADD PRIMARY KEY (id)")
    apply_outbox_schema(stand.connection, PostgresSettings(), OutboxSettings())
    first = message(**TOO_LARGE)
    both = first, message("u", id=first.id, **TOO_LARGE)
    stand.write(*both)
    for topic in refused.split():
        stand.topics[topic] = {"max.message.bytes": "10000"}
    stand.recover(first.id)
    assert stand.kept() == {(topic, first.id) for topic in refused.split()}
    assert stand.carries(*both) == ([] if "u" in refused else [1])
    if "u" in refused:
        with pytest.raises(RefusedError, match="without --topic"):
            postgres.send_skipped(stand.connection, first.id, "t")
    postgres.send_skipped(stand.connection, first.id, None)
    assert stand.kept() == set()
    assert sorted(stand.carries(*both)) == [0, 1]


def test_what_is_kept_by_its_id_alone_loses_no_other_of_that_id(stand: Stand) -> None:
    """Before the schema is applied anew: what finds no place aside stays in the outbox, and is named again."""
    stand.connection.execute("DROP INDEX outbox_skipped_known_by")
    stand.connection.execute("ALTER TABLE outbox_skipped ADD PRIMARY KEY (id)")
    first = message()
    stand.write(first, message("u", id=first.id))
    stand.topics.clear()
    stand.recover(first.id)
    (left,) = stand.connection.execute("SELECT topic FROM outbox").fetchall()
    assert {left[0], *(topic for topic, _ in stand.kept())} == {"t", "u"}


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_what_a_writer_commits_while_recovery_waits_for_it_is_sent(stand: Stand, isolation: str) -> None:
    """Whatever the database's default is: the slot is moved past that row."""
    name = stand.connection.info.dbname
    stand.connection.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = '{isolation}'")
    first, second = message(), message()
    stand.write(first)
    with psycopg.connect(stand.settings.postgres.database_url(SERVICE)) as writer:
        write(writer, [second])
        threading.Timer(1.5, writer.commit).start()
        stand.recover()
    assert stand.carries(first, second) == [0, 1]


def test_what_was_committed_without_waiting_for_the_disk_keeps_its_order(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service may say `synchronous_commit = off`: the slot would go no further than what is on disk."""
    stand.connection.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")  # 200 ms by default: makes the race sure
    stand.connection.execute("SELECT pg_reload_conf(), pg_sleep(0.5)")
    first, second = message(), message()
    stand.write(first)
    write_uncarried = postgres.write_uncarried

    def just_after(*arguments: Any, **options: Any) -> Any:
        with psycopg.connect(stand.settings.postgres.database_url(SERVICE)) as writer:
            writer.execute("SET synchronous_commit = off")
            write(writer, [second])
            writer.commit()
            return write_uncarried(*arguments, **options)

    monkeypatch.setattr(postgres, "write_uncarried", just_after)
    try:
        stand.recover()
    finally:
        stand.connection.execute("ALTER SYSTEM RESET wal_writer_delay")
        stand.connection.execute("SELECT pg_reload_conf()")
    assert stand.carries(first, second) == [0, 1]


def test_what_was_accepted_once_is_sent_though_its_service_may_not_write_it_now(stand: Stand) -> None:
    """Another topic, a lower limit, a clock that was set back: Kafka takes each, and the checks are there again."""
    stand.connection.execute("INSERT INTO outbox_topics VALUES ('t', 1000000), ('u', 1000000)")
    stand.write(message(**TOO_LARGE), message("u"))
    stand.connection.execute("ALTER TABLE outbox DROP CONSTRAINT outbox_created_at_utc")
    now = datetime.now(UTC)
    ahead, of_old = stand.insert(now + timedelta(minutes=30)), stand.insert(datetime(1999, 1, 1, tzinfo=UTC))
    apply_outbox_schema(stand.connection, PostgresSettings(), OutboxSettings(), topics={"t": 10_000})
    assert stand.recover().written == 4
    times = {
        id_: max(at) if id_ == of_old else min(at)
        for id_, at in stand.connection.execute("SELECT id, array_agg(created_at) FROM outbox GROUP BY 1").fetchall()
    }
    assert times[of_old] == datetime(2000, 1, 1)
    assert times[ahead] < now.replace(tzinfo=None) + timedelta(minutes=15)
    for refused in (message("u"), message(**TOO_LARGE)):
        with pytest.raises(psycopg.errors.CheckViolation):
            stand.write(refused)


def test_a_message_that_the_outbox_refuses_by_now_is_no_traceback_of_re_emit(stand: Stand) -> None:
    """Its connector runs: what Kafka may refuse is not sent unasked."""
    one = message()
    stand.write(one)
    stand.connection.execute("INSERT INTO outbox_topics VALUES ('u', 1000000)")
    with pytest.raises(RefusedError, match="towpath provision"):
        postgres.re_emit(stand.connection, [("t", one.id)], datetime.now(UTC) - timedelta(hours=1))


def test_an_error_on_the_way_says_that_the_connector_is_stopped_and_what_sets_it_going(stand: Stand) -> None:
    """A check of the user's own, a right that was taken, a server that goes away."""
    stand.write(message())
    stand.connection.execute("ALTER TABLE outbox ADD CONSTRAINT own CHECK (key <> 'o-1') NOT VALID")
    with pytest.raises(WorldError, match="may be stopped") as ended:
        stand.recover()
    assert step_in(str(ended.value), "capture recover x") == ["capture", "recover", SERVICE]
    stand.connection.execute("ALTER TABLE outbox DROP CONSTRAINT own")
    assert stand.recover().written == 1


def skip(one: OutboxMessage) -> None:
    """Run `towpath capture skip`."""
    cli.skip(SERVICE, one.id, reason="r", yes=True)


def test_a_skip_that_was_killed_may_be_run_again(stand: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    """After the message was set aside, and once more when all is done."""
    stand.topics["t"] = {"max.message.bytes": "10000"}
    bad, after = message(**TOO_LARGE), message()
    stand.write(bad, after)
    stand.connect.killed_at = "forget_position"
    with pytest.raises(KeyboardInterrupt):
        skip(bad)
    assert step_in(capsys.readouterr().err, "capture recover x") == ["capture", "recover", SERVICE]
    assert stand.connect.state == "STOPPED"
    stand.connect.killed_at = ""
    skip(bad)
    assert stand.connect.state == "RUNNING"
    assert set(stand.carries(bad, after)) == {1}
    skip(bad)
    with pytest.raises(NotFoundError):
        skip(message())


def test_of_two_recoveries_at_once_the_second_is_refused(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while the first waits until its outbox is read; afterwards all are free."""
    stand.write(message())

    def again(*_: Any, **__: Any) -> None:
        with pytest.raises(RefusedError, match="by somebody else") as refused:
            stand.recover()
        assert refused.value.exit_code == ExitCode.REFUSED
        assert step_in(str(refused.value), "capture status x") == ["capture", "status", SERVICE]

    monkeypatch.setattr(recovery, "wait_until_captured", again)
    assert stand.recover().written == 1
    monkeypatch.setattr(recovery, "wait_until_captured", lambda *_, **__: None)
    assert stand.recover().written == 1


def test_a_slot_that_is_read_again_meanwhile_is_a_clear_error(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody resumed the connector by other means."""
    stand.write(message())
    write_uncarried = postgres.write_uncarried
    url = stand.settings.postgres.database_url(SERVICE)
    with psycopg.connect(url, autocommit=True, replication="database") as reader:

        def read_meanwhile(*arguments: Any, **options: Any) -> Any:
            reader.pgconn.send_query(
                f"START_REPLICATION SLOT {stand.slot} LOGICAL 0/0"
                " (proto_version '1', publication_names 'towpath_outbox')".encode()
            )
            while not (found := postgres.slot_state(stand.connection, stand.slot)) or not found.active:
                time.sleep(0.05)
            return write_uncarried(*arguments, **options)

        monkeypatch.setattr(postgres, "write_uncarried", read_meanwhile)
        with pytest.raises(WorldError, match="is read by somebody"):
            stand.recover()
        reader.close()
    while (found := postgres.slot_state(stand.connection, stand.slot)) and found.active:
        time.sleep(0.05)


def ending(error: WorldError) -> bytes:
    """Return the statement that the next step of an error tells to run."""
    step = error.next_step or ""
    return step[step.index(": ") + 2 : step.index(";")].split(" (or")[0].encode()


def test_a_writer_for_whom_recovery_waits_too_long_is_named_with_what_ends_it(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An application's open transaction; somebody who only reads is not meant."""
    monkeypatch.setattr(postgres, "WRITERS_TIMEOUT", "300ms")
    stand.write(message())
    url = stand.settings.postgres.database_url(SERVICE)
    with psycopg.connect(url) as reader, closing(psycopg.connect(url, application_name="nightly report")) as writer:
        reader.execute("SELECT FROM outbox")
        write(writer, [message()])
        with pytest.raises(WorldError, match="nightly report") as raised:
            stand.recover()
        assert f"pg_terminate_backend({writer.info.backend_pid})" in (raised.value.next_step or "")
        stand.connection.execute(ending(raised.value))
        assert stand.recover().written == 1


def test_a_writer_that_is_a_prepared_transaction_is_named_too(
    preparing_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no process, and pg_stat_activity does not show it."""
    monkeypatch.setattr(postgres, "WRITERS_TIMEOUT", "300ms")

    def recover() -> tuple[int, int]:
        with (
            psycopg.connect(preparing_database_url, autocommit=True) as own,
            psycopg.connect(preparing_database_url, autocommit=True) as advance,
        ):
            since = datetime(2020, 1, 1, tzinfo=UTC)
            return postgres.write_uncarried(own, advance, "no slot", [], since, [], actor="ann", reason="r")

    with psycopg.connect(preparing_database_url) as writer:
        write(writer, [message()])
        writer.execute("PREPARE TRANSACTION 'of a service'")
        writer.commit()
        with pytest.raises(WorldError, match="prepared as 'of a service'") as raised:
            recover()
        writer.autocommit = True
        writer.execute(ending(raised.value))
    assert recover() == (0, 0)


@pytest.mark.parametrize(
    "verb",
    [
        cli.status,
        cli.audit,
        cli.skipped,
        lambda services: cli.skip(services[0], uuid4(), "r"),
        lambda services: cli.resend(services[0], uuid4()),
    ],
    ids=["status", "audit", "skipped", "skip", "resend"],
)
def test_a_database_that_was_not_provisioned_is_a_clear_error(stand: Stand, verb: Callable[[list[str]], None]) -> None:
    """Whichever verb asks it."""
    stand.connection.execute("DROP TABLE outbox CASCADE")
    stand.connection.execute("DROP TABLE outbox_skipped")
    with pytest.raises(NotFoundError, match=f"the database of {SERVICE} has no outbox") as raised:
        verb([SERVICE])
    assert raised.value.next_step == "towpath provision"


def test_re_emit_writes_what_its_audit_found_however_long_the_question_is_open(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--hours` is counted once."""
    stand.insert(datetime.now(UTC) - timedelta(hours=1) + timedelta(seconds=20))
    monkeypatch.setattr(postgres, "has_carried", lambda *_: True)
    since = cli._since
    asked: list[float] = []

    def later_each_time(hours: float) -> datetime:
        asked.append(hours)
        return since(hours) + timedelta(minutes=len(asked) - 1)

    monkeypatch.setattr(cli, "_since", later_each_time)
    cli.re_emit(SERVICE, reason="r", hours=1.0, yes=True)
    assert stand.connection.execute("SELECT count(*) FROM outbox").fetchall() == [(2,)]


def test_a_message_that_two_send_again_at_once_goes_once(stand: Stand) -> None:
    """Whatever the database's default isolation is: it is no more kept for the second."""
    stand.connection.execute(
        f"ALTER DATABASE {stand.connection.info.dbname} SET default_transaction_isolation = 'repeatable read'"
    )
    one = message()
    stand.write(one)
    stand.recover(one.id)
    second: list[BaseException] = []

    def send() -> None:
        with postgres.connect(stand.settings, SERVICE) as connection:
            try:
                postgres.send_skipped(connection, one.id, "u")
            except BaseException as error:
                second.append(error)

    with postgres.connect(stand.settings, SERVICE) as connection, connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
        sending = threading.Thread(target=send)
        connection.execute("SELECT FROM outbox_skipped FOR UPDATE")
        sending.start()
        time.sleep(1)
        connection.execute(
            "INSERT INTO outbox (id, topic, key, type, payload) VALUES (%s, 't', 'k', 'T', '')", (one.id,)
        )
        connection.execute("DELETE FROM outbox_skipped")
    sending.join(60)
    assert [type(error) for error in second] == [NotFoundError]
    assert stand.connection.execute("SELECT count(*) FROM outbox").fetchall() == [(1,)]


@pytest.mark.parametrize("hours", [99_999_999.0, float("inf"), float("nan")])
def test_more_hours_than_the_calendar_has_are_refused(hours: float) -> None:
    """Before anything is asked."""
    with pytest.raises(ConfigurationError, match="--hours"):
        cli.audit([SERVICE], hours=hours)
