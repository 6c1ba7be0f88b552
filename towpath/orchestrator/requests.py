"""What a person asks of an instance: made from the instance as it stands, tried on it first, and sent as a record.

No I/O imports. The one rule: a request's id is derived from what the person saw (the instance, the action, and how the
steps stood), so asking again about the same situation is the same request, and takes effect once.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from uuid import NAMESPACE_URL, UUID, uuid5

from towpath.contract.codec import Codec
from towpath.errors import RefusedError
from towpath.orchestrator import envelope
from towpath.orchestrator import records as wire
from towpath.orchestrator.mapping import Messages
from towpath.saga.advance import Decision, advance
from towpath.saga.definition import Definition
from towpath.saga.effects import (
    AnswerParent,
    CompensateSaga,
    Effect,
    Happened,
    Record,
    SendCommand,
    StartNext,
    StartSaga,
)
from towpath.saga.errors import BuilderError
from towpath.saga.inputs import Action, OperatorAsked
from towpath.saga.state import NEED_A_PERSON, Direction, SagaState, StepState, StepStatus, direction_of
from towpath.stream.broker.record import Headers

REQUEST_NAMESPACE = uuid5(NAMESPACE_URL, "towpath:operator-request")

SIGNAL_NAMESPACE = uuid5(NAMESPACE_URL, "towpath:signal")

OF_A_STEP = frozenset({Action.RETRY, Action.SKIP})
_CAN_BE_RETRIED = (*NEED_A_PERSON, StepStatus.BACKOFF, StepStatus.UNDO_BACKOFF)


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `step` and `item` are empty where it is about the whole saga; `reply` is what a skip gives.

    `direction`, `attempt` and `round` are what the person saw of the step; attempt 0 where it is about the whole saga.
    """

    id: str
    saga: str
    saga_id: str
    key: str
    action: Action
    actor: str
    reason: str
    step: str = ""
    item: str = ""
    reply: object | None = None
    direction: Direction = Direction.DO
    attempt: int = 0
    round: int = 0

    def as_input(self, at_milliseconds: int) -> OperatorAsked:
        """Return it as the machine's input, arriving at that time (UTC, since 1970)."""
        return OperatorAsked(
            self.id,
            at_milliseconds,
            self.action,
            self.actor,
            self.reason,
            self.step,
            self.item,
            self.reply,
            self.direction,
            self.attempt,
            self.round,
        )


@dataclass(frozen=True, slots=True)
class UpgradeRequest:
    """A person's request that an instance goes on under another version of its definition."""

    id: str
    saga: str
    saga_id: str
    key: str
    version: int
    actor: str
    reason: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What the history says of a request or signal: `refusal` is the machine's reason, None where it took effect.

    `status` is the saga's after it; `history_offset` is where the view of instances found it in the history.
    """

    request_id: str
    refusal: str | None
    status: str
    history_offset: int = 0


@dataclass(frozen=True, slots=True)
class Preview:
    """What the machine would decide: `refusal` is its reason where it would refuse, else None.

    `sends` says in words which messages would be sent; `status_after` is the saga's status after it; `changes` names
    each step (or item) that would change, with its status before and after.
    """

    refusal: str | None
    status_before: str
    status_after: str
    sends: tuple[str, ...]
    changes: tuple[tuple[str, str, str], ...]


def request_of(
    state: SagaState,
    action: Action,
    *,
    actor: str,
    reason: str,
    step: str = "",
    item: str = "",
    reply: object | None = None,
) -> Request:
    """Return the request about `state`, the instance as the person sees it.

    Where `action` is about a step and `step` is empty, or it is a list and `item` is empty, the only step, or item of
    it, that it can be about is taken: of those called `item`, where that is named. Raises RefusedError where there is
    none, or more than one.
    """
    is_list = any(one.key == step and one.items for one in state.steps)
    if action in OF_A_STEP and (not step or (is_list and not item)):
        step, item = _only_step(state, action, step, item)
    seen: list[object] = [
        state.saga_id,
        action.value,
        step,
        item,
        state.direction.value,
        state.status.value,
        _form_of(reply),
        # What was refused may be asked again once its reason is gone, so what was decided last is seen, too.
        state.recent[-1][0] if state.recent else "",
    ]
    direction, attempt, round_ = Direction.DO, 0, 0
    for name, cell in cells(state):
        if action not in OF_A_STEP or name == (step, item):
            seen.append([*name, cell.status.value, cell.attempt, cell.round])
        if action in OF_A_STEP and name == (step, item):
            direction = direction_of(cell.status)
            attempt, round_ = cell.attempt, cell.round
    id_ = str(uuid5(REQUEST_NAMESPACE, json.dumps(seen)))
    return Request(
        id_,
        state.saga,
        state.saga_id,
        state.key,
        action,
        actor,
        reason,
        step,
        item,
        reply,
        direction,
        attempt,
        round_,
    )


def upgrade_of(state: SagaState, version: int, *, actor: str, reason: str) -> UpgradeRequest:
    """Return the request that `state` goes on under `version`; asked about the same status of steps, it is the same."""
    seen = [state.saga_id, "upgrade", version, state.version, *(cell.status.value for _, cell in cells(state))]
    id_ = str(uuid5(REQUEST_NAMESPACE, json.dumps(seen)))
    return UpgradeRequest(id_, state.saga, state.saga_id, state.key, version, actor, reason)


def cells(state: SagaState) -> Iterator[tuple[tuple[str, str], StepState]]:
    """Yield each step, then its items, with its name: step's key and item's key, the latter empty for a step."""
    for step in state.steps:
        yield (step.key, ""), step
        for item in step.items:
            yield (step.key, item.key), item


def preview(definition: Definition, state: SagaState, request: Request, at_milliseconds: int) -> Preview:
    """Return what the machine would decide if `request` arrived at `at_milliseconds` (UTC, since 1970) and nothing else
    came before it.

    Raises RefusedError for an instance that was begun under another definition of that version.
    """
    if {step.key for step in state.steps} != definition.index.keys():
        raise RefusedError(
            f"{state.saga_id} was begun under another definition: version {state.version} was edited since",
            kept="the instance, as it was",
            next_step=f"deploy version {state.version} of {state.saga} as it was, and the edited one beside it as "
            f"version {state.version + 1}",
        )
    # Its lines may stand in another order now, which is no change.
    arranged = replace(state, steps=tuple(state.step(key) for key in definition.index))
    try:
        decision = advance(definition, arranged, request.as_input(at_milliseconds))
    except BuilderError as error:
        return Preview(str(error), state.status.value, state.status.value, (), ())
    return preview_of(arranged, decision)


def preview_of(state: SagaState, decision: Decision) -> Preview:
    """Return what was decided about an instance that stood as `state`, in words."""
    entry = next(effect for effect in decision.effects if isinstance(effect, Record))
    after = decision.state or state
    return Preview(
        refusal=entry.reason if entry.happened is Happened.REFUSED else None,
        status_before=state.status.value,
        status_after=after.status.value,
        sends=tuple(_sends(decision.effects)),
        changes=tuple(_changes(state, after)),
    )


def signal_id(saga: str, key: str, signal: object) -> UUID:
    """Return the id of a signal whose sender names none: the same signal to the same key is the same one."""
    return uuid5(SIGNAL_NAMESPACE, json.dumps([saga, key, repr(signal)]))


def answer_of(entry: wire.HistoryEntry) -> Answer:
    """Return what an entry of the history says of the input that it is about."""
    refused = entry.happened == Happened.REFUSED.value
    return Answer(entry.input_id, entry.reason if refused else None, entry.status)


def to_wire(codec: Codec, request: Request | UpgradeRequest) -> wire.OperatorAsked:
    """Return the record that carries `request`. Raises ContractError for a reply that breaks its schema."""
    if isinstance(request, UpgradeRequest):
        return wire.OperatorAsked(
            saga_id=request.saga_id,
            action=wire.OperatorAction.UPGRADE,
            version=request.version,
            actor=request.actor,
            reason=request.reason,
        )
    return wire.OperatorAsked(
        saga_id=request.saga_id,
        action=wire.OperatorAction(request.action.value),
        step=request.step,
        item=request.item,
        reply=Messages(codec).wrap_optional(request.reply),
        direction=request.direction.value,
        attempt=request.attempt,
        round=request.round,
        actor=request.actor,
        reason=request.reason,
    )


def to_record(codec: Codec, request: Request | UpgradeRequest) -> tuple[str, bytes, bytes, Headers]:
    """Return topic, key, value and headers of the record that carries `request`. Raises ContractError."""
    asked = to_wire(codec, request)
    headers = envelope.headers_of(id=request.id, type=asked.SCHEMA_NAME, saga_id=request.saga_id, saga=request.saga)
    topic = envelope.topic_of(request.saga, envelope.OPERATOR)
    return topic, request.key.encode(), codec.encode(asked), headers


def _form_of(reply: object | None) -> str:
    return "" if reply is None else repr(reply)


def _only_step(state: SagaState, action: Action, step: str, item: str) -> tuple[str, str]:
    """Return the only step (and item) that a person can mean, of those that they named. Raises RefusedError."""
    # A list stands as its items do: it is these that are asked about.
    asked = [
        (name, cell)
        for name, cell in cells(state)
        if not cell.items and step in ("", name[0]) and item in ("", name[1])
    ]
    waiting = [name for name, cell in asked if cell.status in NEED_A_PERSON]
    if not waiting and action is Action.RETRY:
        waiting = [name for name, cell in asked if cell.status in _CAN_BE_RETRIED]
    if len(waiting) == 1:
        return waiting[0]
    named = ", ".join(f"{step} item {item}" if item else step for step, item in waiting)
    where = f"towpath saga show {state.saga} {state.saga_id}"
    if not waiting:
        what = f"item {item}" if item else "step"
        raise RefusedError(
            f"no {what} of {state.saga_id} can be asked to {action.value}: the saga is {state.status.value}",
            kept="the saga, as it was",
            next_step=where,
        )
    raise RefusedError(
        f"{len(waiting)} steps of {state.saga_id} need a person: {named}",
        kept="the saga, as it was",
        next_step=f"say which one with --step (and --item), or resume, which tries them all; {where} shows them",
    )


def _sends(effects: Iterable[Effect]) -> Iterator[str]:
    for effect in effects:
        if isinstance(effect, SendCommand):
            to = f"{effect.participant}: {effect.direction.value} {effect.step}"
            yield f"{type(effect.command).__name__} to {to}{f' {effect.item}' if effect.item else ''}"
        elif isinstance(effect, StartSaga):
            yield f"{type(effect.event).__name__} to saga {effect.child}"
        elif isinstance(effect, StartNext):
            yield f"{type(effect.event).__name__} to this saga, as its next instance"
        elif isinstance(effect, CompensateSaga):
            yield f"a request to undo itself to saga {effect.child}"
        elif isinstance(effect, AnswerParent):
            yield f"{type(effect.reply).__name__} to saga {effect.parent.saga}"


def _changes(before: SagaState, after: SagaState) -> Iterator[tuple[str, str, str]]:
    was = dict(cells(before))
    for (step, item), cell in cells(after):
        earlier = was.get((step, item))
        if earlier is None or earlier.status is not cell.status:
            name = f"{step} item {item}" if item else step
            yield name, "" if earlier is None else earlier.status.value, cell.status.value
