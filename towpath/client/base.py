"""What the synchronous and the asynchronous client share: how one is made, what it sends, where it may write. Pure."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self
from uuid import UUID, uuid4

from towpath import tracing
from towpath.client.arguments import require_action, require_key, require_named, require_text
from towpath.client.awaiting import Which
from towpath.client.messages import ClientMessages, Named, Sent
from towpath.client.saga import InstanceStatus, Started
from towpath.clock import Clock, SystemClock
from towpath.contract.catalogue import Catalogue
from towpath.contract.codec import Codec
from towpath.contract.record import Record
from towpath.contract.registry import load_codec
from towpath.outbox.handover import Handover
from towpath.outbox.message import OutboxMessage
from towpath.outbox.names import VIEWS_DATABASE
from towpath.project import load_sagas
from towpath.saga.definition import Definition
from towpath.saga.inputs import Action
from towpath.settings import Settings, load_settings
from towpath.tracing import SpanKind

Home = tuple[str, int, str, str]
"""Host, port and database of a connection, and the topic that its outbox may write."""


class ClientBase:
    """Holds no connection to a database: safe to share between threads and tasks."""

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        codec: Codec,
        clock: Clock | None = None,
        *,
        handover: Handover | None = None,
        sagas: Mapping[str, Mapping[int, Definition]] | None = None,
        new_id: Callable[[], UUID] = uuid4,
    ) -> None:
        """Take what starts and follows sagas; with a `handover`, `hand_over` spares a start the wait for capture.

        `sagas` are the definitions by name and version; by default, those that the project registers. `load` finds all
        of it by itself. `new_id` is asked for the id of a request that nothing else determines.
        """
        self._new_id = new_id
        self.codec = codec
        self.settings = settings
        self._handover = handover
        self._clock = clock or SystemClock()
        self._sagas = sagas
        self._homes: set[Home] = set()
        self._messages = ClientMessages(catalogue, codec, self._definitions)

    @classmethod
    def load(
        cls, settings: Settings | None = None, *, clock: Clock | None = None, handover: Handover | None = None
    ) -> Self:
        """Return the client of a project: by default, of the one in or above the working directory.

        Asks the registry once for the schemas of what sagas read and write; after that a client needs PostgreSQL alone.
        Raises ConfigurationError where there is no such project, WorldError where the registry does not answer.
        """
        settings = settings or load_settings()
        catalogue = Catalogue.load(settings)
        sagas = load_sagas(settings)
        topics = dict.fromkeys(topic for saga in sagas for topic in catalogue.topics_of(saga))
        return cls(settings, catalogue, load_codec(settings, catalogue, topics), clock, handover=handover, sagas=sagas)

    def hand_over(self, sent: Started | Sent) -> bool:
        """Take a start, signal or request to Kafka now that its transaction is committed; return whether it was sent.

        Never before the commit: what was rolled back must not start anything. Without a hand-over, or under load,
        this does nothing, and capture brings the event a moment later, as it does in any case. Never raises.
        """
        return bool(sent.message and self._handover and self._handover.hand_over((sent.message,)))

    @contextmanager
    def _starting(
        self, saga: str, key: str, event: Record, *, event_id: UUID, **headers: Any
    ) -> Iterator[tuple[Started, OutboxMessage]]:
        """Give a start and its message, to be written within its span."""
        with tracing.span(f"start {saga}", {"towpath.saga": saga, "towpath.key": key}, kind=SpanKind.PRODUCER):
            started = self._messages.start(saga, key, event, event_id=event_id, **headers)
            assert started.message is not None  # made just now
            yield started, started.message

    @contextmanager
    def _signalling(
        self, saga: str, key: str, record: Record, *, signal_id: UUID | None, saga_id: str | None, **headers: Any
    ) -> Iterator[Sent]:
        """Give a signal, to be written within its span."""
        with tracing.span(f"signal {saga}", {"towpath.saga": saga, "towpath.key": key}, kind=SpanKind.PRODUCER):
            yield self._messages.signal(saga, key, record, id=signal_id, saga_id=saga_id, **headers)

    @contextmanager
    def _asking(
        self, instance: Named, action: Action, *, actor: str, reason: str, request_id: UUID | None, **more: Any
    ) -> Iterator[Sent]:
        """Give a request, to be written within its span; `more` are step, item and reply, and headers."""
        require_named(instance)
        action = require_action(action)
        if request_id is None and not isinstance(instance, InstanceStatus):
            request_id = self._new_id()  # nobody looked how it stands: asked once more, it is another question
        about = {"towpath.saga": instance.saga, "towpath.saga_id": instance.saga_id, "towpath.key": instance.key}
        with tracing.span(f"{action.value} {instance.saga}", about, kind=SpanKind.PRODUCER):
            yield self._messages.request(instance, action, actor=actor, reason=reason, id=request_id, **more)

    def _of_key(self, saga: str, key: str) -> Which:
        """Return what finds the instances of a business key. Raises ConfigurationError for what is none."""
        return Which(None, require_text(saga, "saga"), require_key(key))

    def _known(self, saga: str, found: list[InstanceStatus]) -> list[InstanceStatus]:
        """Return what was found. Raises ConfigurationError for nothing of a saga that the project does not have."""
        if not found:
            self._messages.require_known(saga)
        return found

    def _views_options(self) -> dict[str, Any]:
        """Return what psycopg is given to connect to the views' database, in autocommit."""
        postgres = self.settings.postgres
        url = postgres.database_url(VIEWS_DATABASE)
        return {"conninfo": url, "autocommit": True, **postgres.connection_options()}

    def _definitions(self) -> Mapping[str, Mapping[int, Definition]]:
        if self._sagas is None:
            self._sagas = load_sagas(self.settings)
        return self._sagas
