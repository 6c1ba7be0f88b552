"""Versions that run today decode and continue: bytes of older versions are read, decided again, and gone on from.

e8b8867 wrote of the sagas that it could say; `whole_course` has what can be said since.
"""

import base64
import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from schemas.records.catalog import StockReleased, StockReserved
from schemas.records.identity import CustomerVerified
from schemas.records.order import OrderApproved, OrderConfirmed, OrderRejected
from schemas.records.payment import AuthorisationVoided, PaymentAuthorised, PaymentCaptured
from tests.unit.orchestrator.desktop import CODEC, Sent, commands, history, order_placed
from tests.unit.orchestrator.family import Family
from tests.unit.upgrade.shapes import SHAPES
from tests.unit.upgrade.write import EVERY_SHAPE
from towpath.contract.codec import WriterSchema
from towpath.orchestrator import records as wire
from towpath.orchestrator.mapping import Messages, state_from_wire, state_to_wire
from towpath.orchestrator.recording import golden_of, input_of
from towpath.saga import Saga
from towpath.saga.advance import advance
from towpath.saga.decision_builder import timer_of
from towpath.saga.inputs import Action, OperatorAsked, Replied, Signalled, TimerFired
from towpath.saga.state import Direction, SagaState
from towpath.saga.testing.samples import sample
from towpath.stream.state.partition_state import Checkpoint

FOLDER = Path(__file__).parent
WRITTEN_BY: dict[str, dict[str, Callable[[], Saga[Any]]]] = {"e8b8867": SHAPES, "whole_course": EVERY_SHAPE}
EACH_SAGA = [(version, saga) for version, shapes in WRITTEN_BY.items() for saga in shapes]

for _version in WRITTEN_BY:
    _writers = json.loads((FOLDER / _version / "writers.json").read_text(encoding="utf-8"))
    for _schema_id, _avro in _writers.values():
        if not CODEC.knows(_schema_id):
            CODEC.learn(WriterSchema(_schema_id, _avro))


@cache
def written(version: str) -> list[dict[str, Any]]:
    """Return what a version has written."""
    content = gzip.decompress((FOLDER / version / "bytes.jsonl.gz").read_bytes())
    return [json.loads(line) for line in content.splitlines()]


def walks(version: str, saga: str) -> Iterator[tuple[list[wire.HistoryEntry], list[SagaState]]]:
    """Yield the recorded runs of a saga: the entries of its history, and its state after each."""
    messages = Messages(CODEC)
    for walk in written(version):
        if walk.get("saga") == saga:
            entries, states = [], []
            for entry, state in walk["entries"]:
                decoded, stored = CODEC.decode(base64.b64decode(entry)), CODEC.decode(base64.b64decode(state))
                assert isinstance(decoded, wire.HistoryEntry)
                assert isinstance(stored, wire.SagaState)
                entries.append(decoded)
                states.append(state_from_wire(stored, messages))
            yield entries, states


@pytest.mark.parametrize(("version", "saga"), EACH_SAGA)
def test_each_state_is_read_and_written_back(version: str, saga: str) -> None:
    """What was stored then is a state of now, and comes back from the bytes of now as it is."""
    messages, seen = Messages(CODEC), 0
    for _, states in walks(version, saga):
        for state in states:
            again = CODEC.decode(CODEC.encode(state_to_wire(state, messages)))
            assert isinstance(again, wire.SagaState)
            assert state_from_wire(again, messages) == state
            seen += 1
    assert seen > 100


@pytest.mark.parametrize(("version", "saga"), EACH_SAGA)
def test_each_recorded_run_is_decided_as_it_was(version: str, saga: str) -> None:
    """Every entry of every history is what would be written now; and the state is the one that was stored."""
    definition = EVERY_SHAPE[saga]().definition
    for entries, states in map(_until_asked_again, walks(version, saga)):
        golden_of(definition, entries, CODEC)
        state, messages = None, Messages(CODEC)
        for entry, stored in zip(entries, states, strict=True):
            state = advance(definition, state, input_of(entry, messages)).state
            assert state is not None
            # Requests that were refused are remembered now; at e8b8867 they were not.
            assert state == stored or version == "e8b8867"
            assert (state.steps, state.status, state.direction, state.cause) == (
                stored.steps,
                stored.status,
                stored.direction,
                stored.cause,
            )
            assert set(stored.recent) <= set(state.recent) or state.forgotten_milliseconds >= 0


def _until_asked_again(
    run: tuple[list[wire.HistoryEntry], list[SagaState]],
) -> tuple[list[wire.HistoryEntry], list[SagaState]]:
    """Return a run up to where a refused request comes again: it was forgotten then, and is not now."""
    entries, states = run
    refused: set[str] = set()
    for number, entry in enumerate(entries):
        if entry.input == "OperatorAsked" and entry.input_id in refused:
            return entries[:number], states[:number]
        if entry.input == "OperatorAsked" and entry.happened == "refused":
            refused.add(entry.input_id)
    return entries, states


@pytest.mark.parametrize(("version", "saga"), EACH_SAGA)
def test_each_stored_state_goes_on_to_an_ending(version: str, saga: str) -> None:
    """From wherever it stood, once all that is out is answered well, and what is stuck is answered late."""
    definition = EVERY_SHAPE[saga]().definition
    for _, states in walks(version, saga):
        for stored in states:
            state, now = stored, stored.started_milliseconds + 10**9
            for number in range(200):
                if state.ended:
                    break
                input_ = next(_kind_inputs(definition, state, f"kind-{number}", now))
                decided = advance(definition, state, input_).state
                assert decided is not None
                assert decided != state, input_
                state = decided
            assert state.ended


def _kind_inputs(definition: Any, state: SagaState, id_: str, now: int) -> Iterator[Any]:
    """Yield what a kind world does next."""
    for step, stands in zip(definition.steps, state.steps, strict=True):
        for cell, item in ((each, each.key) for each in stands.items) if stands.items else ((stands, ""),):
            status = cell.status.value
            if status in ("undoing", "undo_backoff", "undo_stuck"):
                undone = next(kind for kind, ok in step.undo.outcomes.items() if ok)
                yield Replied(id_, now, step.key, Direction.UNDO, cell.attempt, cell.round, sample(undone), item)
            elif status == "undo_failed":
                yield OperatorAsked(id_, now, Action.SKIP, "ada", "test", step.key, item)
            elif status in ("sent", "backoff", "waiting", "stuck") and step.outcomes:
                well = sample(next(kind for kind, ok in step.outcomes.items() if ok))
                if step.policy is None:
                    yield Signalled(id_, now, well)
                elif stands.items or step.over is None:
                    yield Replied(id_, now, step.key, Direction.DO, cell.attempt, cell.round, well, item)
            elif status == "waiting":
                yield TimerFired(id_, max(now, cell.due_milliseconds), timer_of(step.key, item, cell))
            elif status == "stuck":
                yield OperatorAsked(id_, now, Action.SKIP, "ada", "test", step.key, item)
    yield OperatorAsked(id_, now, Action.COMPENSATE, "ada", "too many items")


# --- whole partitions -------------------------------------------------------------------------------------------------

ANSWERS: dict[str, Any] = {
    "VerifyCustomer": CustomerVerified(order_id="order-1", customer_id="customer-1"),
    "ReserveStock": StockReserved(order_id="order-1", reservation_id="r-1"),
    "ReleaseStock": StockReleased(order_id="order-1"),
    "AuthorisePayment": PaymentAuthorised(order_id="order-1", authorisation_id="a-1", amount_cents=2_000_00),
    "VoidAuthorisation": AuthorisationVoided(order_id="order-1"),
    "ConfirmOrder": OrderConfirmed(order_id="order-1", confirmed_at=datetime(2026, 1, 1, tzinfo=UTC)),
    "RejectOrder": OrderRejected(order_id="order-1", reason="test", rejected_at=datetime(2026, 1, 1, tzinfo=UTC)),
    "CapturePayment": sample(PaymentCaptured),
}
DUMPS = {f"{version}: {dump['dump']}": dump for version in WRITTEN_BY for dump in written(version) if "dump" in dump}
VOTE = OrderApproved(order_id="order-1", approver="grace")


def revived(dump: dict[str, Any]) -> Family:
    """Return the workers as they stood."""
    family = Family(*(EVERY_SHAPE[saga]() for saga in dump["state"]))
    for saga, pairs in dump["state"].items():
        worker = family[saga]
        worker.clock.advance(dump["at"] - worker.clock.now().timestamp())
        for key, value in pairs:
            worker._state.put_reserved(base64.b64decode(key), base64.b64decode(value))
        worker._state.settle(Checkpoint(0, "topic", 0))
    return family


@pytest.mark.parametrize("dump", DUMPS.values(), ids=[name.replace(" ", "_") for name in DUMPS])
def test_a_partition_is_taken_over(dump: dict[str, Any]) -> None:
    """Its commands are answered, its timers fire, its early signals are taken: every saga in it comes to an ending."""
    family = revived(dump)
    out = [
        Sent(each["topic"], each["key"], each["headers"], CODEC.decode(base64.b64decode(each["payload"])), None)
        for each in dump["out"]
    ]
    first = next(iter(dump["state"]))
    if not out and first == "place_order":
        out = commands(family[first].give("order.events", order_placed(total_cents=2_000_00), id="event-1"))
    statuses: dict[str, str] = {}

    def take(sent: list[Sent]) -> None:
        out.extend(commands(sent))
        statuses.update({entry.saga_id: entry.status for entry in history(sent) if entry.saga_id})

    for number in range(60):
        if out:
            command = out.pop(0)
            reply = ANSWERS[type(command.record).__name__]
            take(family.carry(family[command.headers["saga"]].reply(command, reply)))
        elif number < 20 and first != "buy":
            # Whoever is asked says yes, and time passes until they are asked.
            for voter in ("grace", "hilda"):
                vote = replace(VOTE, approver=voter)
                take(family.carry(family[first].give(f"{first}.signals", vote, id=f"{voter}-{number}")))
            take(family.pass_hours(2))
    assert set(statuses.values()) <= {"completed", "compensated"}
    family.pass_hours(200)
    assert [family.kept(saga) for saga in dump["state"]] == [0 for _ in dump["state"]]
