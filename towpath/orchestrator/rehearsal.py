"""A signal tried before it is sent: the orchestrator itself takes it, over what is kept of its key. Pure.

The one rule: nothing leaves and nothing is kept; what is told is what the worker would decide if the signal came now,
and nothing else came before it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from towpath.contract.codec import Codec
from towpath.errors import ContractError, first_line
from towpath.orchestrator import records as wire
from towpath.orchestrator.core import Orchestrator
from towpath.orchestrator.record_context import StateLike, TimersLike
from towpath.orchestrator.requests import Preview, preview_of
from towpath.saga.advance import Decision
from towpath.saga.definition import Definition
from towpath.saga.effects import Happened
from towpath.saga.errors import BuilderError
from towpath.saga.inputs import Input
from towpath.saga.state import SagaState
from towpath.stream.broker.port import OutputRefused
from towpath.stream.broker.position import PartitionHeld
from towpath.stream.broker.record import ConsumedRecord, Headers
from towpath.stream.broker.record_limits import RecordLimits


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What would become of a signal.

    `decided` has, by its id, what each instance would decide. `refusal` is the reason where no instance takes it and
    it would not be kept either, or for which it would be a dead letter; `waits` where the worker would wait instead of
    deciding; `kept` says that it would be kept for an instance that starts within a day.
    """

    decided: Mapping[str, Preview]
    refusal: str | None = None
    waits: str | None = None
    kept: bool = False


@dataclass
class _State:
    """The state of one partition, changed here alone."""

    values: dict[bytes, bytes]

    def get(self, key: bytes) -> bytes | None:
        return self.values.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self.values[key] = value

    def delete(self, key: bytes) -> None:
        self.values.pop(key, None)


class _NoTimers:
    """Timers that are not kept."""

    def set(self, *_: object, **__: object) -> None:
        """Set nothing."""

    def cancel(self, key: bytes) -> bool:  # noqa: ARG002 - the port's
        """Say that there was none."""
        return False


@dataclass
class _Unit:
    """A unit of work that is never committed."""

    now_milliseconds: int
    kept: _State
    history_topic: str
    limits: RecordLimits
    history: list[bytes] = field(default_factory=list)

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None,  # noqa: ARG002 - the port's
        headers: Headers,  # noqa: ARG002
        partition: int | None = None,  # noqa: ARG002
    ) -> None:
        if topic == self.history_topic and value is not None:
            self.history.append(value)

    def state(self, changelog: str, partition: int) -> StateLike:  # noqa: ARG002 - the port's
        return self.kept

    def timers(self, partition: int) -> TimersLike:  # noqa: ARG002 - the port's
        return _NoTimers()


def rehearse(
    definitions: Mapping[int, Definition],
    codec: Codec,
    record: ConsumedRecord,
    kept: Mapping[bytes, bytes],
    *,
    history_topic: str,
    limits: RecordLimits | None = None,
) -> Rehearsed:
    """Return what a worker with `definitions` would do with `record`, a signal of its topic.

    `kept` is what the saga's state topic has about the signal's key, by key. Raises PeerError for a record that is no
    signal of this saga.
    """
    decided: dict[str, Preview] = {}

    def note(_: Definition, before: SagaState | None, __: Input, decision: Decision) -> None:
        if before is not None:
            decided[before.saga_id] = preview_of(before, decision)

    limits = limits or RecordLimits()
    orchestrator = Orchestrator(
        definitions, codec, start_topic=None, finished_retention_milliseconds=0, observe=note, limits=limits
    )
    unit = _Unit(record.timestamp_milliseconds, _State(dict(kept)), history_topic, limits)
    try:
        orchestrator.handle(record, unit)
    except PartitionHeld as held:
        return Rehearsed(decided, waits=held.cause)
    except (BuilderError, ContractError, OutputRefused) as error:
        # Its unit of work is aborted: no instance decides anything.
        return Rehearsed({}, refusal=f"{first_line(error)}; it would be a dead letter")
    entries = [entry for value in unit.history if isinstance(entry := codec.decode(value), wire.HistoryEntry)]
    refused = [one.reason for one in entries if not one.saga_id and one.happened == Happened.REFUSED.value]
    refusal = next(iter(refused), None)
    return Rehearsed(decided, refusal, kept=not decided and refusal is None)
