"""One saga instance of a project in memory, as a test looks at it and talks to it."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from towpath.client.saga import InstanceStatus, standing_of
from towpath.contract.record import Record
from towpath.orchestrator import envelope
from towpath.orchestrator.instance_status import instances_in
from towpath.orchestrator.mapping import Messages
from towpath.orchestrator.records import HistoryEntry
from towpath.orchestrator.requests import request_of, to_record
from towpath.orchestrator.sagas_view import SagaInstance, fold
from towpath.saga.inputs import Action
from towpath.saga.state import SagaState
from towpath.view.view import Occurrence

if TYPE_CHECKING:
    from towpath.testing.project import InMemoryProject


class Instance:
    """An instance that was started, whether it has begun or not. What it says is how it stands at that moment."""

    def __init__(self, project: "InMemoryProject", saga: str, saga_id: str, key: str) -> None:
        self._project = project
        self.saga = saga
        self.saga_id = saga_id
        self.key = key
        self._row: SagaInstance | None = None
        self._folded = 0

    # --- how it stands ----------------------------------------------------------------------------------------------

    @property
    def history(self) -> list[HistoryEntry]:
        """Return what happened to it, in order: one entry for each input, refused ones too."""
        return list(self._own(self._project.entries(envelope.topic_of(self.saga, envelope.HISTORY))))

    @property
    def standing(self) -> InstanceStatus | None:
        """Return how it stands, as an application's client is told; None before it has begun."""
        entries = self._project.entries(envelope.topic_of(self.saga, envelope.HISTORY))
        for entry in self._own(islice(entries, self._folded, None)):
            at = datetime.fromtimestamp(entry.at_milliseconds / 1000, UTC)
            self._row = fold(self._row, entry, Occurrence(f"{self.saga}.history", self.key, entry.input_id, at))
        self._folded = len(entries)
        return None if self._row is None else standing_of(self._row, self._project.codec)

    @property
    def status(self) -> str:
        """Return running, compensating, completed, compensated or stuck; "not begun" before it has begun."""
        standing = self.standing
        return "not begun" if standing is None else standing.status

    @property
    def completed(self) -> bool:
        """Return whether it completed."""
        return self.status == "completed"

    @property
    def compensated(self) -> bool:
        """Return whether everything that it did was undone."""
        return self.status == "compensated"

    @property
    def stuck(self) -> bool:
        """Return whether it needs a person."""
        return self.status == "stuck"

    @property
    def ended(self) -> bool:
        """Return whether it completed or compensated."""
        return self.completed or self.compensated

    @property
    def reason(self) -> str | None:
        """Return why it compensates or is stuck."""
        standing = self.standing
        return None if standing is None else standing.reason

    @property
    def waiting_for(self) -> str | None:
        """Return the events or persons that it waits for."""
        standing = self.standing
        return None if standing is None else standing.waiting_for

    @property
    def result(self) -> Record | None:
        """Return what it came to, where it says so."""
        standing = self.standing
        return None if standing is None else standing.result

    @property
    def state(self) -> SagaState:
        """Return the machine's own state, with every step. Raises AssertionError before it has begun."""
        records = self._project.broker.records(envelope.topic_of(self.saga, envelope.STATE))
        for instance in instances_in(records, self._project.codec, Messages(self._project.codec)):
            if instance.state.saga_id == self.saga_id:
                return instance.state
        raise AssertionError(f"{self.saga} {self.key} has not begun: project.run() comes first")

    @property
    def commands(self) -> Sequence[Record]:
        """Return the commands that it has sent, undos and repetitions too, in the order of their times and topics."""
        sent = [
            record
            for topic in sorted(self._project.parts.catalogue.topics)
            if topic.endswith(".commands")
            for record in self._project.broker.records(topic)
            if record.header("saga_id") == self.saga_id
        ]
        sent.sort(key=lambda record: record.timestamp_milliseconds)
        return [self._project.codec.decode(record.value or b"") for record in sent]

    def _own(self, entries: Iterable[tuple[str, Record]]) -> Iterator[HistoryEntry]:
        return (entry for _, entry in entries if isinstance(entry, HistoryEntry) and entry.saga_id == self.saga_id)

    # --- talking to it ----------------------------------------------------------------------------------------------

    def signal(self, message: Record) -> "Instance":
        """Send it an event, or a person's decision, that it waits for."""
        self._project.publish(f"{self.saga}.signals", message, key=self.key)
        return self

    def ask(
        self,
        action: Action | str,
        *,
        by: str = "ada",
        because: str = "test",
        step: str = "",
        item: str = "",
        reply: Record | None = None,
    ) -> "Instance":
        """Have a person ask it to `retry`, `skip`, `resume`, `cancel` or `compensate`, as `towpath saga` does."""
        request = request_of(self.state, Action(action), actor=by, reason=because, step=step, item=item, reply=reply)
        topic, key, value, headers = to_record(self._project.codec, request)
        self._project.broker.append(topic, value, key=key, headers=headers)
        return self

    def __repr__(self) -> str:
        """Say how it stands: this is what a failing assertion shows."""
        standing = self.standing
        words = [self.status]
        if standing is not None and standing.reason:
            words.append(f"because of {standing.reason}")
        if standing is not None and standing.waiting_for:
            words.append(f"waiting for {standing.waiting_for}")
        return f"<{self.saga} {self.key}: {', '.join(words)}>"

    def story(self) -> str:
        """Return what happened to it, in lines: what a person reads when a test fails."""
        return "\n".join(_line(entry) for entry in self.history)


def _line(entry: Any) -> str:
    at = datetime.fromtimestamp(entry.at_milliseconds / 1000, UTC)
    where = f" of {entry.step}" if entry.step else ""
    why = f": {entry.reason}" if entry.reason else ""
    return f"{at:%Y-%m-%d %H:%M:%S} {entry.happened} {entry.detail}{where}{why} -> {entry.status}"
