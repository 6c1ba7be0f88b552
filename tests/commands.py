"""Commands as the orchestrator sends them, for tests of participants."""

from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

from towpath.contract.codec import Codec
from towpath.contract.files import schema_sets
from towpath.contract.record import Record
from towpath.orchestrator.envelope import headers_of
from towpath.saga.keys import command_id_of, idempotency_key_of, saga_id_of
from towpath.settings import load_settings
from towpath.stream.broker.record import ConsumedRecord

CODEC = Codec.offline(schema_sets(load_settings(Path(__file__).resolve().parents[1], environment=False)))


@dataclass(frozen=True, slots=True)
class Asking:
    """What is asked of a service on behalf of one order. Change it with `dataclasses.replace`."""

    command: Record
    key: str = "o-1"
    step: str = "step"
    item: str = ""
    direction: str = "do"
    attempt: int = 1
    round: int = 1
    saga: str = "place_order"
    deadline: str = "2026-01-01T00:00:00+00:00"

    @property
    def saga_id(self) -> str:
        """Return the id of the saga that asks."""
        return saga_id_of(self.saga, self.key)

    @property
    def idempotency_key(self) -> UUID:
        """Return the key under which the outcome is recorded."""
        return UUID(idempotency_key_of(self.saga_id, self.step, self.item, self.direction, self.round))

    @property
    def undoes(self) -> UUID | None:
        """Return the key of what this undoes."""
        return None if self.direction == "do" else replace(self, direction="do", round=1).idempotency_key

    def again(self) -> "Asking":
        """Return the next attempt."""
        return replace(self, attempt=self.attempt + 1)

    def record(self, offset: int = 0, **changes: str | None) -> ConsumedRecord:
        """Return the record that carries it; `changes` replace headers, or drop them where they are None."""
        headers: dict[str, object] = {
            "id": command_id_of(str(self.idempotency_key), self.attempt),
            "type": self.command.SCHEMA_NAME,
            "saga_id": self.saga_id,
            "saga": self.saga,
            "step": self.step,
            "item": self.item,
            "direction": self.direction,
            "attempt": self.attempt,
            "round": self.round,
            "idempotency_key": self.idempotency_key,
            "undoes": self.undoes,
            "reply_to": f"{self.saga}.replies",
            "deadline": self.deadline,
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        }
        value = CODEC.encode(self.command)
        return ConsumedRecord(
            "x.commands", 0, offset, 1_700_000_000_000, self.key.encode(), value, headers_of(**{**headers, **changes})
        )
