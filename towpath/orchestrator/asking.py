"""Sends people's requests to a saga and reads from its history what became of them.

I/O goes through the broker port alone, so the memory broker serves as well. The one rule: requests are sent in
transactions, and an outcome is what the history says of the request's id, never a guess from the state.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice

from towpath.clock import Clock
from towpath.contract.codec import Codec
from towpath.errors import PartlyDoneError, WorldError
from towpath.orchestrator import envelope
from towpath.orchestrator import records as wire
from towpath.orchestrator.requests import Answer, Request, UpgradeRequest, answer_of, to_record
from towpath.stream.broker.port import (
    Broker,
    BrokerAway,
    OutcomeUnknown,
    PartitionReader,
    ProducerFenced,
    TransactionAborted,
)
from towpath.stream.broker.record import Headers, TopicPartition

REQUESTS_PER_TRANSACTION_MAX = 100
"""At about 1 KiB each a transaction of 100 KiB; so many at the most are sent together when a run is interrupted."""
POLL_SECONDS = 0.05

Message = tuple[str, bytes, bytes, Headers]
"""Topic, key, value, headers."""


class Answers:
    """Waits for the outcomes of requests. Make it before they are sent: it reads on from the present end."""

    def __init__(self, broker: Broker, codec: Codec, saga: str, clock: Clock) -> None:
        topic = envelope.topic_of(saga, envelope.HISTORY)
        count = broker.partition_counts([topic]).get(topic, 0)
        places = [TopicPartition(topic, number) for number in range(count)]
        self._clock = clock
        self._codec = codec
        self._readers: list[PartitionReader] = [
            broker.reader(place, offset) for place, offset in broker.end_offsets(places).items()
        ]

    def wait(self, ids: Iterable[str], *, seconds: float) -> Iterator[Answer]:
        """Yield the answer to each of `ids` as it comes, for at most `seconds` since the last one."""
        waiting = set(ids)
        last = self._clock.monotonic_seconds()
        while waiting and self._clock.monotonic_seconds() - last < seconds:
            for reader in self._readers:
                for record in reader.poll(POLL_SECONDS)[0]:
                    answer = self._answer(record.value, waiting)
                    if answer is not None:
                        waiting.discard(answer.request_id)
                        last = self._clock.monotonic_seconds()
                        yield answer

    def close(self) -> None:
        """Close the readers."""
        for reader in self._readers:
            reader.close()

    def _answer(self, value: bytes | None, waiting: set[str]) -> Answer | None:
        entry = None if value is None else self._codec.decode(value)
        if not isinstance(entry, wire.HistoryEntry) or entry.input_id not in waiting:
            return None
        return answer_of(entry)


def send(
    broker: Broker,
    messages: Sequence[Message],
    *,
    transactional_id: str,
    rate_per_second: float | None = None,
    sleep: Callable[[float], None],
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Send `messages` in their order, in transactions, at most `rate_per_second` of them; tell `progress` how many.

    Raises PartlyDoneError where another run under the same `transactional_id` has begun since, WorldError where the
    broker does not take them: what `progress` was last told is sent for certain, and to send the rest, or all, again
    does no harm.
    """
    producer, sent = broker.producer(transactional_id), 0
    try:
        producer.start()
        pending = iter(messages)
        size = REQUESTS_PER_TRANSACTION_MAX
        if rate_per_second is not None:
            size = max(1, min(size, int(rate_per_second)))
        while chunk := list(islice(pending, size)):
            producer.begin()
            for topic, key, value, headers in chunk:
                producer.produce(topic, value, key=key, headers=headers)
            producer.commit({}, None)
            sent += len(chunk)
            progress(sent)
            if rate_per_second is not None and sent < len(messages):
                sleep(len(chunk) / rate_per_second)
    except ProducerFenced as error:
        raise PartlyDoneError(
            f"another run has begun the same, and this one gave way to it: {sent} of {len(messages)} were sent",
            kept="what was sent: each takes effect once, however often it is sent",
            next_step="let the other run end, then run this again: it does what is left",
        ) from error
    except (BrokerAway, TransactionAborted, OutcomeUnknown) as error:
        raise WorldError(
            f"{sent} of {len(messages)} were sent for certain, the rest perhaps not: {error.cause}",
            kept="what was sent: each takes effect once, however often it is sent",
            next_step="towpath status, then run this again: it does what is left",
        ) from error
    finally:
        producer.close()


def ask(
    broker: Broker,
    codec: Codec,
    clock: Clock,
    requests: Sequence[Request] | Sequence[UpgradeRequest],
    *,
    transactional_id: str,
    wait_seconds: float,
    rate_per_second: float | None = None,
    sleep: Callable[[float], None],
    progress: Callable[[int], None] = lambda _: None,
) -> Mapping[str, Answer]:
    """Send `requests`, all of one saga, and return the answers that came, by the request's id.

    Waits `wait_seconds` since the last answer for the next one; 0 does not wait. Raises what `send` raises.
    """
    if not requests:
        return {}
    answers = Answers(broker, codec, requests[0].saga, clock)
    try:
        send(
            broker,
            [to_record(codec, request) for request in requests],
            transactional_id=transactional_id,
            rate_per_second=rate_per_second,
            sleep=sleep,
            progress=progress,
        )
        if wait_seconds <= 0:
            return {}
        found = answers.wait([request.id for request in requests], seconds=wait_seconds)
        return {answer.request_id: answer for answer in found}
    finally:
        answers.close()
