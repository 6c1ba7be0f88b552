"""What an application sends to a saga, as messages for its outbox: starts, signals, and people's requests. Pure.

The one rule: whatever the project's own definitions would refuse by its kind is refused here, before anything is
written: an event that starts another saga, a signal that no wait takes, a reply that the step does not declare.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID, uuid5

from towpath.client.arguments import require_id, require_key, require_text
from towpath.client.saga import (
    NOTHING_WRITTEN,
    InstanceStatus,
    Started,
    require_start,
    start_topic,
    takes_no_signal,
    versions_of,
)
from towpath.contract.catalogue import Catalogue
from towpath.contract.codec import Codec
from towpath.contract.record import Record
from towpath.errors import ConfigurationError
from towpath.orchestrator import envelope
from towpath.orchestrator.requests import OF_A_STEP, REQUEST_NAMESPACE, Request, signal_id, to_wire
from towpath.outbox.message import PAYLOAD_BYTES_MAX, TEXT_COLUMNS, OutboxMessage, from_record
from towpath.outbox.topics import record_bytes_max
from towpath.saga.definition import Definition, StepDefinition
from towpath.saga.inputs import Action

Sagas = Mapping[str, Mapping[int, Definition]]


class Named(Protocol):
    """What names an instance: a `Started`, or how one stands."""

    @property
    def saga(self) -> str:
        """Return the definition's name."""
        ...

    @property
    def saga_id(self) -> str:
        """Return the instance's id."""
        ...

    @property
    def key(self) -> str:
        """Return the business key."""
        ...


@dataclass(frozen=True, slots=True)
class Sent:
    """A signal or a request that travels once the caller's transaction commits.

    `saga_id` is None for a signal to whatever instances its key has.
    """

    saga: str
    key: str
    id: UUID
    saga_id: str | None
    message: OutboxMessage = field(repr=False, compare=False)
    """The outbox row: what `hand_over` takes to Kafka."""


def require_sent(sent: Any) -> Sent:
    """Return what a client sent. Raises ConfigurationError for anything else: nobody answers it."""
    if isinstance(sent, Sent):
        return sent
    starts = "a start is followed by await_ending(started.saga_id)"
    raise ConfigurationError(
        f"a signal or a request is answered, not a {type(sent).__name__}",
        kept="everything as it was",
        next_step=f"pass what signal, cancel or ask returned; {starts}",
    )


class ClientMessages:
    """Makes the messages. `definitions` returns the project's sagas by name and version."""

    def __init__(self, catalogue: Catalogue, codec: Codec, definitions: Callable[[], Sagas]) -> None:
        self._catalogue = catalogue
        self._codec = codec
        self._definitions = definitions

    def start(self, saga: str, key: str, event: Record, *, event_id: UUID, **headers: Any) -> Started:
        """Return the start of a saga. Raises ConfigurationError, ContractError."""
        saga, key, event_id = require_text(saga, "saga"), require_key(key), require_id(event_id, "event_id")
        require_start(self._definitions(), saga, type(event))
        topic = start_topic(self._catalogue, saga, type(event))
        return Started.by(saga, key, event_id, self._message(topic, key, event, id=event_id, **headers))

    def signal(
        self,
        saga: str,
        key: str,
        record: Record,
        *,
        id: UUID | None,  # noqa: A002 - the message's own word for it
        saga_id: str | None,
        **headers: Any,
    ) -> Sent:
        """Return a signal. Raises ConfigurationError for one that no version of the saga takes, ContractError."""
        saga, key = require_text(saga, "saga"), require_key(key)
        taken = {kind for definition in self._versions(saga).values() for kind in definition.signals}
        if type(record) not in taken:
            raise takes_no_signal(saga, type(record).__name__, (kind.__name__ for kind in taken))
        id_ = signal_id(saga, key, record) if id is None else require_id(id, "signal_id")
        named: dict[str, Any] = {} if saga_id is None else {"saga_id": require_id(saga_id, "saga_id"), "saga": saga}
        topic = self._topic(saga, envelope.SIGNALS)
        message = self._message(topic, key, record, id=id_, **named, **headers)
        return Sent(saga, key, id_, None if saga_id is None else str(named["saga_id"]), message)

    def request(
        self,
        instance: Named,
        action: Action,
        *,
        actor: str,
        reason: str,
        step: str = "",
        item: str = "",
        reply: Record | None = None,
        id: UUID | None = None,  # noqa: A002 - the message's own word for it
        **headers: Any,
    ) -> Sent:
        """Return a person's request. Raises ConfigurationError for one that no version could take, ContractError."""
        said = [require_text(value or "", name) for name, value in {"actor": actor, "reason": reason}.items()]
        if not all(words.strip() for words in said):
            raise ConfigurationError(
                "a request names who asks and why",
                kept=NOTHING_WRITTEN,
                next_step="give actor and reason; the history keeps both",
            )
        key, saga_id = require_key(instance.key), require_id(instance.saga_id, "saga_id")
        step, item = require_text(step, "step"), require_text(item, "item")
        if action in OF_A_STEP:
            self._require_step(instance.saga, action, step, reply)
        seen = instance.updated_at.isoformat() if isinstance(instance, InstanceStatus) else ""
        known_by = [str(saga_id), action.value, step, item, "" if reply is None else repr(reply), seen]
        derived = uuid5(REQUEST_NAMESPACE, json.dumps(["client", *known_by]))
        id_ = derived if id is None else require_id(id, "request_id")
        request = Request(str(id_), instance.saga, str(saga_id), key, action, actor, reason, step, item, reply)
        topic, record = self._topic(instance.saga, envelope.OPERATOR), to_wire(self._codec, request)
        message = self._message(topic, key, record, id=id_, saga_id=saga_id, saga=instance.saga, **headers)
        return Sent(instance.saga, key, id_, str(saga_id), message)

    def require_known(self, saga: str) -> None:
        """Raise ConfigurationError unless the project has a saga of that name."""
        versions_of(self._definitions(), saga, do="name")

    def _message(self, topic: str, key: str, record: Record, **headers: Any) -> OutboxMessage:
        """Return the outbox's row. Raises ConfigurationError for one that it would refuse, ContractError."""
        message = from_record(self._codec, topic, key, record, **headers)
        for name in TEXT_COLUMNS:
            if (value := getattr(message, name)) is not None:
                require_text(value, name)
        bytes_, bytes_max = message.record_bytes, record_bytes_max(self._catalogue.topic(topic).config)
        if len(message.payload) > PAYLOAD_BYTES_MAX or bytes_ > bytes_max:
            raise ConfigurationError(
                f"a {type(record).__name__} of {bytes_:,} bytes is too large for {topic}: an outbox takes "
                f"{PAYLOAD_BYTES_MAX:,} of payload, and the topic {bytes_max:,} with key and headers",
                kept=NOTHING_WRITTEN,
                next_step="send less, or a reference to what lies elsewhere",
            )
        return message

    def not_here(self, database: str, topic: str) -> ConfigurationError:
        """Return the error for a database whose outbox may not write `topic`."""
        writers = ", ".join(self._catalogue.topic(topic).producers)
        return ConfigurationError(
            f"database {database} has no outbox that may write {topic}",
            kept=NOTHING_WRITTEN,
            next_step=f"pass a connection to the database of {writers}; where it is that one: towpath provision; "
            f"where another service is to write it: add it to the producers in schemas/topics/{topic}.yaml",
        )

    def _versions(self, saga: str) -> Mapping[int, Definition]:
        return versions_of(self._definitions(), saga, do="name")

    def _topic(self, saga: str, kind: str) -> str:
        return self._catalogue.topic(envelope.topic_of(saga, kind)).name

    def _require_step(self, saga: str, action: Action, step: str, reply: Record | None) -> None:
        versions = self._versions(saga).values()
        found = [definition.steps[definition.index[step]] for definition in versions if step in definition.index]
        if not found:
            names = sorted({name for definition in versions for name in definition.index})
            raise ConfigurationError(
                f"{action.value} is about a step, and saga {saga} has no step {step!r}",
                kept=NOTHING_WRITTEN,
                next_step=f"name one of {', '.join(names)}",
            )
        answers = {kind for one in found for kind in _answers(one)}
        if reply is not None and type(reply) not in answers:
            names = sorted(kind.__name__ for kind in answers)
            raise ConfigurationError(
                f"step {step} of saga {saga} does not declare {type(reply).__name__}",
                kept=NOTHING_WRITTEN,
                next_step=f"give one of {', '.join(names) or 'none: it takes no reply'}",
            )


def _answers(step: StepDefinition) -> tuple[type, ...]:
    return (*step.outcomes, *(step.undo.outcomes if step.undo is not None else ()))
