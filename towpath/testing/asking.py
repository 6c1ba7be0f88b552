"""Commands as the orchestrator sends them, for tests of a service without any saga. Pure."""

from dataclasses import dataclass, replace
from typing import Self
from uuid import UUID

from towpath.contract.codec import Codec
from towpath.contract.record import Record
from towpath.orchestrator.envelope import headers_of
from towpath.saga.keys import command_id_of, idempotency_key_of, saga_id_of
from towpath.saga.state import Direction
from towpath.stream.broker.record import ConsumedRecord

SAGA = "a_test"


@dataclass(frozen=True, slots=True)
class Asking:
    """One command, and who asks it: an attempt at a step of the saga that is about `key`.

    Change it with `dataclasses.replace`; `again` is the next attempt, `undoing` the undo of the same step.
    """

    command: Record
    key: str = "key"
    step: str = "step"
    item: str = ""
    direction: Direction = Direction.DO
    attempt: int = 1
    round: int = 1
    saga: str = SAGA
    deadline: str = "2026-01-02T00:00:00+00:00"
    tenant: str | None = None

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
        """Return the key of what this undoes, None where it is no undo."""
        if self.direction is Direction.DO:
            return None
        return replace(self, direction=Direction.DO, round=1).idempotency_key

    def again(self) -> Self:
        """Return the next attempt."""
        return replace(self, attempt=self.attempt + 1)

    def undoing(self, command: Record) -> Self:
        """Return the first attempt at undoing it, by `command`."""
        return replace(self, command=command, direction=Direction.UNDO, attempt=1, round=1)

    def record(self, codec: Codec, topic: str, offset: int, at_milliseconds: int) -> ConsumedRecord:
        """Return the record that carries it in `topic`, at `offset`. Raises ContractError for an unfit command."""
        headers = headers_of(
            id=command_id_of(str(self.idempotency_key), self.attempt),
            type=self.command.SCHEMA_NAME,
            saga_id=self.saga_id,
            saga=self.saga,
            step=self.step,
            item=self.item,
            direction=self.direction.value,
            attempt=self.attempt,
            round=self.round,
            idempotency_key=self.idempotency_key,
            undoes=self.undoes,
            reply_to=f"{self.saga}.replies",
            deadline=self.deadline,
            tenant=self.tenant,
        )
        value = codec.encode(self.command)
        return ConsumedRecord(topic, 0, offset, at_milliseconds, self.key.encode(), value, headers)
