"""Handles one record of a saga's inputs: finds the instance, asks the machine, has the decision performed. Pure.

The one rule: state, commands, timers and history of a decision go into the same unit of work as the record's offset,
in `_perform`, and nowhere else.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from towpath import metrics
from towpath.contract.codec import Codec
from towpath.errors import ContractError, first_line
from towpath.orchestrator import envelope
from towpath.orchestrator import records as wire
from towpath.orchestrator.buffered_signals import EARLY_SIGNAL_MILLISECONDS, BufferedSignals
from towpath.orchestrator.cancelled_children import forget_withdrawn, started_by, withdraw, withdrawn_by
from towpath.orchestrator.chains import Chains
from towpath.orchestrator.instances import Instances
from towpath.orchestrator.mapping import Messages, wire_name
from towpath.orchestrator.performer import Performer
from towpath.orchestrator.record_context import RecordContext, UnitLike
from towpath.orchestrator.repetition import UnheldReplies, repeats_reply
from towpath.orchestrator.retention import FORGET, Retention
from towpath.saga.advance import Decision, advance
from towpath.saga.decision_builder import start_key_of
from towpath.saga.definition import Definition, Kind, SecondStart
from towpath.saga.effects import AnswerParent, SubsagaCompensated
from towpath.saga.errors import BuilderError
from towpath.saga.history import facts_of
from towpath.saga.inputs import (
    Action,
    Input,
    OperatorAsked,
    ParentAsked,
    PlainInput,
    Replied,
    Signalled,
    Started,
    Timer,
    TimerFired,
    TimerKind,
    Undecidable,
    Unfit,
    Unrecognised,
    UpgradeAsked,
)
from towpath.saga.keys import saga_id_of
from towpath.saga.migrate import migrate, not_moved
from towpath.saga.state import Direction, ParentReference, SagaState
from towpath.stream.broker.port import OutputRefused
from towpath.stream.broker.position import PartitionHeld
from towpath.stream.broker.record import ConsumedRecord, plausible_milliseconds
from towpath.stream.broker.record_limits import RecordLimits

Observe = Callable[[Definition, SagaState | None, Input, Decision], None]


class Orchestrator:
    """Runs all versions of one saga. One for each worker; what it remembers is only a cache of the unit's state.

    `start_topic` is where its start events come from: a topic, or several; None for a saga that only other sagas start.
    `observe` is told each decision, in a unit that may yet be aborted: about which definition and instance (None: it
    began), on what input, and what was decided.
    `limits` says how large a record each topic takes.
    """

    def __init__(
        self,
        definitions: Mapping[int, Definition],
        codec: Codec,
        *,
        start_topic: str | tuple[str, ...] | None,
        finished_retention_milliseconds: int,
        observe: Observe | None = None,
        limits: RecordLimits | None = None,
    ) -> None:
        limits = limits or RecordLimits()
        self._definitions = definitions
        self._observe = observe
        self._newest = max(definitions)
        always = SecondStart.REFUSE_ALWAYS
        self._one_for_ever = frozenset(version for version, each in definitions.items() if each.second_start is always)
        self.name = definitions[self._newest].name
        self._codec = codec
        self._messages = Messages(codec)
        self._instances = Instances(codec, self._messages)
        self._chains = Chains(self.name, definitions, self._instances)
        self._early = BufferedSignals(self.name, codec, self._messages, limits)
        self._unheld = UnheldReplies(self._messages)
        self._retention = Retention(codec, finished_retention_milliseconds)
        self._performer = Performer(self.name, codec, self._messages, self._retention, limits)
        # Where two versions start on the same type, the newer one does.
        self._starts = {
            wire_name(kind): version for version in sorted(definitions) for kind in definitions[version].starts
        }
        self._changelog = envelope.topic_of(self.name, envelope.STATE)
        self._handlers: dict[str, Callable[[RecordContext], None]] = {
            **dict.fromkeys((start_topic,) if isinstance(start_topic, str) else start_topic or (), self._start),
            envelope.topic_of(self.name, envelope.REPLIES): self._reply,
            envelope.topic_of(self.name, envelope.SIGNALS): self._signal,
            envelope.topic_of(self.name, envelope.TIMERS): self._timer,
            envelope.topic_of(self.name, envelope.OPERATOR): self._operator,
        }

    @property
    def topics(self) -> tuple[str, ...]:
        """Return the topics that it reads."""
        return tuple(self._handlers)

    def handle(self, record: ConsumedRecord, unit: UnitLike) -> None:
        """Apply `record` in `unit`.

        Raises PeerError for a record that cannot be an input, WorldError where this worker must wait, BuilderError
        where a function of the definition fails.
        """
        at = plausible_milliseconds(record.timestamp_milliseconds, unit.now_milliseconds)
        if at != record.timestamp_milliseconds:
            record = record._replace(timestamp_milliseconds=at)
        self._handlers[record.topic](RecordContext(record, unit, unit.state(self._changelog, record.partition)))

    # --- One method a topic -----------------------------------------------------------------------------------------

    def _start(self, context: RecordContext) -> None:
        type_ = context.record.header("type")
        if type_ is not None and type_ not in self._starts:
            return  # another event of the same topic
        event = self._decoded(context)
        version = self._starts.get(wire_name(type(event)))
        if version is None:
            return
        if self._definitions[version].keyed_by is not None:
            key = start_key_of(self._definitions[version], event)
            if context.record.key != key.encode():
                self._performer.pass_on(context, key)
                return
        self._begin(context, version, event)

    def _reply(self, context: RecordContext) -> None:
        record = context.record
        input_ = Replied(
            envelope.message_id(record),
            record.timestamp_milliseconds,
            envelope.required(record, "step"),
            envelope.direction(record),
            envelope.number(record, "attempt"),
            envelope.number(record, "round"),
            self._decoded(context),
            record.header("item") or "",
        )
        saga_id = envelope.required(record, "saga_id")
        state = self._instances.load(context, saga_id)
        if state is None or not repeats_reply(state, input_):
            self._apply(context, saga_id, input_, type(input_.reply).__name__)
        else:
            self._recognised(context)

    def _signal(self, context: RecordContext) -> None:
        record = context.record
        message = self._decoded(context)
        id_, at, detail = envelope.message_id(record), record.timestamp_milliseconds, type(message).__name__
        if isinstance(message, wire.ParentAsked):
            self._parent_asked(context, ParentAsked(id_, at, envelope.parent_that_asks(record, message)))
        elif isinstance(message, wire.ParentEnded):
            self._parent_ended(context, message)
        elif record.header("parent") is not None or record.header(envelope.STARTS) is not None:
            self._begin_from_saga(context, message)
        else:
            input_, key = Signalled(id_, at, message), envelope.business_key(record)
            named = record.header("saga_id")
            targets = [named] if named else context.instances_of(key)
            awaited = self._chains.next_of(context, key, message) if targets and not named else None
            if awaited is not None or not targets:
                self._keep_early(context, input_, awaited or key)
                return
            for saga_id in targets:
                self._apply(context, saga_id, input_, detail)

    def _timer(self, context: RecordContext) -> None:
        record = context.record
        fired = self._decoded(context)
        if not isinstance(fired, wire.TimerFired):
            raise envelope.MalformedHeaders(record, f"it is no timer but {type(fired).__name__}")
        if fired.kind == FORGET:
            self._forget(context, fired.saga_id)
            return
        timer = Timer(
            envelope.one_of(record, TimerKind, fired.kind, "kind"),
            fired.step,
            fired.item,
            envelope.one_of(record, Direction, fired.direction, "direction"),
            fired.attempt,
            fired.round,
        )
        # Its own time is when it fell due or later: a clock that jumped back in between must not make it early.
        due = plausible_milliseconds(fired.due_milliseconds, context.unit.now_milliseconds)
        at = max(record.timestamp_milliseconds, due)
        self._apply(context, fired.saga_id, TimerFired(envelope.message_id(record), at, timer), timer.kind.value)

    def _operator(self, context: RecordContext) -> None:
        record = context.record
        asked = self._decoded(context)
        if not isinstance(asked, wire.OperatorAsked):
            raise envelope.MalformedHeaders(record, f"it is no request but {type(asked).__name__}")
        if asked.action is wire.OperatorAction.UPGRADE:
            self._upgrade(context, asked)
            return
        input_ = OperatorAsked(
            envelope.message_id(record),
            record.timestamp_milliseconds,
            Action(asked.action.value),
            asked.actor,
            asked.reason,
            asked.step,
            asked.item,
            self._messages.unwrap_optional(asked.reply),
            envelope.one_of(record, Direction, asked.direction, "direction"),
            asked.attempt,
            asked.round,
        )
        self._apply(context, asked.saga_id, input_, input_.action.value)

    def _upgrade(self, context: RecordContext, asked: wire.OperatorAsked) -> None:
        """Let an instance go on under another version. The old one decides about it as long as it has not."""
        record = context.record
        input_ = UpgradeAsked(
            envelope.message_id(record), record.timestamp_milliseconds, asked.version, asked.actor, asked.reason
        )
        state = self._instances.load(context, asked.saga_id)
        if state is None:
            self._performer.refuse(context, self._newest, input_, facts_of(input_)[1], "no such saga has started")
            return
        found = self._found(context, state, input_, facts_of(input_)[1])
        if found is None:
            return
        old, state = found
        new = self._definitions.get(asked.version)
        decision = migrate(old, new, state, input_)
        moved = decision.state is not state
        try:
            self._carry_out(context, new if moved and new is not None else old, state, input_, decision)
        except (OutputRefused, ContractError) as error:
            self._carry_out(context, old, state, input_, not_moved(state, input_, error.cause))

    # --- What they share --------------------------------------------------------------------------------------------

    def _begin_from_saga(self, context: RecordContext, event: Any) -> None:
        record, type_ = context.record, wire_name(type(event))
        version = self._starts.get(type_)
        if version is None:
            input_ = Unrecognised(envelope.message_id(record), record.timestamp_milliseconds, type(event).__name__)
            saga_id = saga_id_of(self.name, input_.id)
            if self._instances.load(context, saga_id) is not None:
                self._apply(context, saga_id, input_, input_.what)  # a repetition, of a version that was taken away
            else:
                reason = "no version of this saga starts on that"
                self._refuse_start(context, self._newest, input_, input_.what, reason, envelope.parent(record))
            return
        asked = envelope.number(record, "saga_version") if record.header("saga_version") else version
        if asked in self._definitions and type_ in map(wire_name, self._definitions[asked].starts):
            version = asked  # one of that number that starts on something else is not the one that the parent knows
        self._begin(context, version, event)

    def _refuse_start(
        self,
        context: RecordContext,
        version: int,
        input_: Input,
        detail: str,
        reason: str,
        parent: ParentReference | None,
    ) -> None:
        """Refuse a start. A parent that can take a failure is given one, and then no such start can take effect.

        One whose step is retriable knows no failure: a start of it that is refused may still be tried again.
        """
        if parent is None or self._definitions[version].kind is Kind.RETRIABLE:
            self._performer.refuse(context, version, input_, detail, reason)
            return
        saga_id = saga_id_of(self.name, input_.id)
        withdraw(context, saga_id, parent.saga_id)
        self._performer.refuse(context, version, input_, detail, reason, self._nothing_left(saga_id, parent))

    def _parent_asked(self, context: RecordContext, input_: ParentAsked) -> None:
        """Let a sub-saga undo itself. One that never began has nothing to undo, and must not begin any more."""
        saga_id, parent = envelope.required(context.record, "saga_id"), input_.parent
        if self._instances.load(context, saga_id) is not None:
            self._apply(context, saga_id, input_, parent.saga)
        elif not started_by(self.name, saga_id, parent):
            reason = "the saga that asks is not the parent of this one"
            self._performer.refuse(context, self._newest, input_, parent.saga, reason)
        else:
            withdraw(context, saga_id, parent.saga_id)
            reason = "no such saga has started: nothing is left to undo"
            answer = self._nothing_left(saga_id, parent)
            self._performer.refuse(context, self._newest, input_, parent.saga, reason, answer)

    def _nothing_left(self, saga_id: str, parent: ParentReference) -> AnswerParent:
        return AnswerParent(saga_id, parent, SubsagaCompensated(self.name, saga_id))

    def _parent_ended(self, context: RecordContext, message: wire.ParentEnded) -> None:
        """Let a sub-saga go: its parent needs it no longer. Nothing that the machine decides about."""
        saga_id = envelope.required(context.record, "saga_id")
        if withdrawn_by(context, saga_id) == message.saga_id:
            withdraw(context, saga_id, message.saga_id)
            self._retention.parent_of_withdrawn_ended(context, saga_id)
            return
        state = self._instances.load(context, saga_id)
        if state is None or state.parent is None or state.parent.saga_id != message.saga_id:
            input_ = Unrecognised(
                envelope.message_id(context.record), context.record.timestamp_milliseconds, type(message).__name__
            )
            self._performer.refuse(context, self._newest, input_, message.saga, "it started no such sub-saga")
            return
        if not self._retention.is_over(context, state):  # else it was told before, and its version may be gone
            self._retention.parent_ended(context, *self._under_definition(state))

    def _begin(self, context: RecordContext, version: int, event: Any) -> None:
        record = context.record
        id_, key = envelope.message_id(record), envelope.business_key(record)
        input_ = Started(
            id_, record.timestamp_milliseconds, event, key, envelope.parent(record), envelope.carried(record)
        )
        saga_id, detail = saga_id_of(self.name, id_), type(event).__name__
        known = self._instances.load(context, saga_id)
        if known is not None:
            if input_.parent is not None or known.start_id != id_:
                self._apply(context, saga_id, input_, detail)  # the machine refuses it
            else:
                self._recognised(context)
            return
        if withdrawn_by(context, saga_id) is not None:
            reason = "its parent was told already that it left nothing behind"
            self._refuse_start(context, version, input_, detail, reason, input_.parent)
            return
        self._instances.refuse_beyond_horizon(context)
        definition = self._definitions[version]
        refused = self._second_start(context, definition, key)
        if refused and input_.parent is not None:
            self._refuse_start(context, version, input_, detail, refused, input_.parent)
            return
        if refused:
            # An instance that only undoes the start: whoever awaits it learns how it ended, and why.
            self._perform(context, definition, None, replace(input_, refused=refused))
            return
        try:
            state = self._decided(context, definition, None, input_)
        except OutputRefused as error:
            if input_.parent is not None:
                self._refuse_start(context, version, input_, detail, error.cause, input_.parent)
            else:
                self._decided(context, definition, None, Unfit(input_, error.cause))
            return
        context.add_instance(key, saga_id, partial(self._instances.has_ended, context))
        for awaited in (key, saga_id):
            for signal in self._early.take(context, awaited):
                self._retention.never_mind(context, self._early.subject(awaited))
                # The start is not to blame for it.
                state = self._perform_or_refuse(context, definition, state, signal, type(signal.signal).__name__)

    def _recognised(self, context: RecordContext) -> None:
        metrics.RECORDS_RECOGNISED.labels(self.name, context.record.topic).inc()

    def _second_start(self, context: RecordContext, definition: Definition, key: str) -> str:
        """Say why a start for a key is refused by what there is of it already; empty where it is not."""
        if definition.second_start is SecondStart.INDEPENDENT:
            return ""
        others = context.instances_of(key)
        if others and definition.second_start is SecondStart.REFUSE_ALWAYS:
            return f"the key has an instance already: {others[0]}"
        for saga_id in others:
            other = self._instances.load(context, saga_id)
            if other is not None and not other.ended:
                return f"the key has an instance already: {saga_id}, which is {other.status.value}"
        return ""

    def _apply(self, context: RecordContext, saga_id: str, input_: PlainInput, detail: str) -> None:
        state = self._instances.load(context, saga_id)
        if state is None:
            self._performer.refuse(context, self._newest, input_, detail, "no such saga has started")
            return
        found = self._found(context, state, input_, detail)
        if found is None:
            return
        if isinstance(input_, OperatorAsked):
            # It is answered: dead, it would keep what they ask next, a cancellation perhaps, waiting.
            self._perform_or_refuse(context, *found, input_, detail)
        else:
            self._perform(context, *found, input_)

    def _found(
        self, context: RecordContext, state: SagaState, input_: Input, detail: str
    ) -> tuple[Definition, SagaState] | None:
        """Return an instance with its definition; None where it is over and has refused `input_` for that.

        Its version may be gone or edited then: whatever it was, it refuses everything now. One that is not over waits
        for its version (PartitionHeld).
        """
        try:
            return self._under_definition(state)
        except PartitionHeld:
            if not self._retention.is_over(context, state):
                raise
        if not self._was_decided(context, state.saga_id, input_):
            self._performer.refuse(context, self._newest, input_, detail, "the saga has ended")
            self._remember(context, state, input_)
        return None

    def _perform_or_refuse(
        self, context: RecordContext, definition: Definition, state: SagaState, input_: PlainInput, detail: str
    ) -> SagaState:
        """Perform an input; refuse one on which a function of the definition raises or breaks a contract.

        What not even the history takes as a refusal is refused without what it carried.
        """
        try:
            try:
                decision = advance(definition, state, input_)
                self._performer.plan(context, definition, decision.state or state, input_, decision)
            except (BuilderError, ContractError) as error:
                return self._decided(context, definition, state, Undecidable(input_, first_line(error)))
            return self._perform(context, definition, state, input_)
        except OutputRefused as error:
            self._performer.refuse(context, definition.version, input_, detail, error.cause)
            return state

    def _under_definition(self, state: SagaState) -> tuple[Definition, SagaState]:
        return self._instances.under_definition(state, self._definitions)

    def _perform(
        self, context: RecordContext, definition: Definition, before: SagaState | None, input_: PlainInput
    ) -> SagaState:
        """Ask the machine and do what it decides: state, commands, timers, history, all in the record's own unit.

        Where a topic would not take a part of that, the machine is asked what becomes of an input that does not fit;
        raises OutputRefused where not even that fits.
        """
        try:
            return self._decided(context, definition, before, input_)
        except OutputRefused as error:
            return self._decided(context, definition, before, Unfit(input_, error.cause))

    def _decided(
        self, context: RecordContext, definition: Definition, before: SagaState | None, input_: Input
    ) -> SagaState:
        """Ask the machine, and do what it decides; a reply that it refuses once more leaves no trace."""
        decision = advance(definition, before, input_)
        if before is not None and decision.state is before and self._was_decided(context, before.saga_id, input_):
            return before
        after = self._carry_out(context, definition, before, input_, decision)
        self._remember(context, after, input_)
        return after

    def _was_decided(self, context: RecordContext, saga_id: str, input_: Input) -> bool:
        known = isinstance(input_, Replied) and self._unheld.has(context, saga_id, input_)
        if known:
            self._recognised(context)
        return known

    def _remember(self, context: RecordContext, state: SagaState, input_: Input) -> None:
        if isinstance(input_, Replied) and not repeats_reply(state, input_):
            self._unheld.add(context, state.saga_id, input_)

    def _carry_out(
        self,
        context: RecordContext,
        definition: Definition,
        before: SagaState | None,
        input_: Input,
        decision: Decision,
    ) -> SagaState:
        """Do what was decided. Raises OutputRefused, with nothing done, where a topic would not take a part of it."""
        after = decision.state
        assert after is not None, "an instance, or a start for which there is none, always leaves one"
        plan = self._performer.plan(context, definition, after, input_, decision)
        kept = None if after is before else self._instances.encoded(definition, after)
        content_before = self._instances.stored_bytes(after.saga_id) if before is not None else 0
        self._performer.weigh(plan, after, b"" if kept is None else kept.content, input_, content_before)
        if self._observe is not None:
            self._observe(definition, before, input_, decision)
        self._performer.perform(context, definition, after, decision, plan)
        if kept is not None:
            self._instances.store(context, kept)
        return after

    def _keep_early(self, context: RecordContext, input_: Signalled, awaited: str) -> None:
        """Keep a signal for the first instance of a key, or for the one of an id: `awaited` is either."""
        key, detail = envelope.business_key(context.record), type(input_.signal).__name__
        refused = self._early.keep(context, awaited, input_)
        if not refused:
            due = context.record.timestamp_milliseconds + EARLY_SIGNAL_MILLISECONDS
            self._retention.forget_later(context, self._early.subject(awaited), key, due)
        else:
            self._performer.refuse(context, self._newest, input_, detail, f"no such saga has started, and {refused}")

    def _forget(self, context: RecordContext, subject: str) -> None:
        key = self._early.key_of(subject)
        if key is None:
            noted = forget_withdrawn(context, subject)
            if noted is not None:
                self._instances.forgotten_up_to(context, noted)
            if noted is not None or self._forget_instance(context, subject):
                self._retention.forgotten(context, subject)
                self._unheld.forget(context, subject)
            return
        for input_ in self._early.take(context, key):
            detail = type(input_.signal).__name__
            self._performer.refuse(context, self._newest, input_, detail, "its saga never started")

    def _forget_instance(self, context: RecordContext, saga_id: str) -> bool:
        """Forget an instance; say whether it could be.

        That its key had one stays where a key has one for ever: by the version that it was of, which may be gone, or by
        one that starts the next. That is about 100 bytes a key.
        """
        state = self._instances.forget(context, saga_id)
        if state is not None and self._one_for_ever.isdisjoint((state.version, *self._starts.values())):
            context.remove_instance(state.key, saga_id)
        return state is not None

    def _decoded(self, context: RecordContext) -> Any:
        """Return what the record carries, as the machine knows it. Raises PeerError."""
        value = context.record.value
        if value is None:
            raise envelope.MalformedHeaders(context.record, "it has no value")
        return self._messages.read(value)


def participants_of(definitions: Mapping[int, Definition]) -> frozenset[str]:
    """Return the services that any version of a saga sends commands to, and so waits for."""
    steps = [step for definition in definitions.values() for step in definition.steps]
    undos = [step.undo.participant for step in steps if step.undo is not None]
    return frozenset(name for name in (*(step.participant for step in steps), *undos) if name)
