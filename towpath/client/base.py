"""What the synchronous and the asynchronous client share: how one is made, what it sends, where it may write. Pure."""

from collections.abc import Mapping
from typing import Self

from towpath.client.messages import ClientMessages, Sent
from towpath.client.saga import Started
from towpath.clock import Clock, SystemClock
from towpath.contract.catalogue import Catalogue
from towpath.contract.codec import Codec
from towpath.contract.registry import load_codec
from towpath.outbox.handover import Handover
from towpath.project import load_sagas
from towpath.saga.definition import Definition
from towpath.settings import Settings, load_settings

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
    ) -> None:
        """Take what starts and follows sagas; with a `handover`, `hand_over` spares a start the wait for capture.

        `sagas` are the definitions by name and version; by default, those that the project registers. `load` finds all
        of it by itself.
        """
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

    def _definitions(self) -> Mapping[str, Mapping[int, Definition]]:
        if self._sagas is None:
            self._sagas = load_sagas(self.settings)
        return self._sagas
