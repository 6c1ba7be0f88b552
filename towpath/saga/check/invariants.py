"""Judges one decision at a time: what must hold of every decision that `advance` takes, in whatever state.

Rule of this file: it decides nothing itself and repeats none of the machine's code. It holds the decision against the
ledger (what was sent, answered, undone) and against the definition.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import TypeAlias

from towpath.saga.advance import Decision
from towpath.saga.check.ledger import OWED, Account, Ledger, account_of, heard, owes, with_account
from towpath.saga.check.properties import Breach, Property
from towpath.saga.decision_builder import SAGA_TIMER, timer_of
from towpath.saga.definition import Activity, Definition, Kind, OnTimeout
from towpath.saga.effects import (
    AnswerParent,
    CancelTimer,
    CompensateSaga,
    Finish,
    Happened,
    PublishEvent,
    Record,
    SendCommand,
    SetTimer,
    StartNext,
    StartSaga,
    SubsagaCompleted,
)
from towpath.saga.inputs import (
    Action,
    Input,
    OperatorAsked,
    ParentAsked,
    Replied,
    Signalled,
    Timer,
    TimerFired,
    TimerKind,
)
from towpath.saga.keys import idempotency_key_of
from towpath.saga.state import CauseKind, Direction, SagaState, Status, StepState, StepStatus

_DO, _UNDO = Direction.DO, Direction.UNDO
_SETTLED = (StepStatus.SUCCEEDED, StepStatus.SKIPPED, StepStatus.DECLINED)
_ASKING = (StepStatus.SENT, StepStatus.BACKOFF, StepStatus.WAITING)
_OUT = (Account.SENT, Account.UNDO_SENT, Account.UNDO_REFUSED)
_TIMED = (*_ASKING, StepStatus.UNDOING, StepStatus.UNDO_BACKOFF)
NEED_A_PERSON = (StepStatus.STUCK, StepStatus.UNDO_STUCK, StepStatus.UNDO_FAILED)

_Attempt: TypeAlias = SendCommand | StartSaga | CompensateSaga


class Judge:
    """Judges the decisions of one definition. `breaches` holds what the last judgement found."""

    def __init__(self, definition: Definition) -> None:
        self.definition = definition
        self.breaches: list[Breach] = []
        self._keys_seen: set[tuple[str, str, Direction, int]] = set()

    def _break(self, property_: Property, subject: str, words: str) -> None:
        self.breaches.append(Breach(property_, subject, words))

    # --- what must be refused ---------------------------------------------------------------------------------------

    def refused(self, before: SagaState, input_: Input, decision: Decision) -> None:
        """Judge an input that must be refused: nothing changes, nothing is sent; an early timer is set again."""
        self.breaches = []
        entry, *rest = decision.effects
        subject = _subject(input_)
        if not isinstance(entry, Record) or entry.happened is not Happened.REFUSED:
            self._break(Property.STALE, subject, "is taken, though it must be refused")
        elif decision.state is not before and not _same_but_remembered(decision.state, before, input_):
            self._break(Property.STALE, subject, "is refused, yet the state changes")
        elif not all(isinstance(effect, SetTimer) for effect in rest):
            self._break(Property.STALE, subject, "is refused, yet something is sent")
        elif isinstance(input_, TimerFired):
            due = next((due for timer, due in timers_of(before) if timer == input_.timer), 0)
            expected = [SetTimer(before.saga_id, input_.timer, due)] if due > input_.at_milliseconds else []
            if rest != expected:
                self._break(Property.TIMERS, subject, "a timer that fires early is not set again as it was")
        elif rest:
            self._break(Property.STALE, subject, "is refused, yet a timer is set")

    # --- what must be taken -----------------------------------------------------------------------------------------

    def taken(self, before: SagaState | None, ledger: Ledger, input_: Input, decision: Decision) -> Ledger:
        """Judge an input that must be taken; return the ledger after it."""
        self.breaches = []
        state, effects = decision.state, decision.effects
        entry = effects[0]
        if not isinstance(entry, Record) or any(isinstance(effect, Record) for effect in effects[1:]):
            self._break(Property.RECORDED, _subject(input_), "has not exactly one entry for the history, in front")
            return ledger
        if entry.happened is Happened.REFUSED or state is None:
            self._break(Property.UNHANDLED, _subject(input_), f"is refused: {entry.reason}")
            return ledger
        if entry.status is not state.status:
            self._break(Property.RECORDED, _subject(input_), "is recorded with another status than the state's")
        answered = self._answered(ledger, input_)
        after = self._follow_sending(before, state, answered, decision)
        self._judge_beginnings(before, state)
        self._judge_branches(before, state)
        self._judge_events(before, state, input_, decision)
        self._judge_next(state, decision)
        self._judge_timers(before, state, input_, decision)
        self._judge_status(state, after)
        self._judge_ending(before, state, after, decision)
        if before is not None:
            self._judge_direction(before, state, after, input_)
            self._judge_meaning(before, state, input_)
            self._judge_declined(before, state, after, input_)
        return after

    def _answered(self, ledger: Ledger, input_: Input) -> Ledger:
        """Enter what the input itself says about a command."""
        if not isinstance(input_, Replied | OperatorAsked) or input_.step not in self.definition.index:
            return ledger
        position = self.definition.index[input_.step]
        entry = ledger[position]
        old = account_of(entry, input_.item)
        new = heard(self.definition, input_, old)
        if new is old:
            return ledger
        items = len(entry) if isinstance(entry, tuple) else 0
        return _replaced(ledger, position, with_account(entry, input_.item, new, items))

    # --- what is sent -----------------------------------------------------------------------------------------------

    def _follow_sending(self, before: SagaState | None, after: SagaState, ledger: Ledger, decision: Decision) -> Ledger:
        """Enter all commands that are sent, each judged against what was entered before it."""
        undone = False
        for effect in decision.effects:
            if not isinstance(effect, SendCommand | StartSaga | CompensateSaga):
                continue
            undo = _direction(effect) is _UNDO
            item = effect.item
            position = self.definition.index[effect.step]
            account = account_of(ledger[position], item)
            if undo and self._not_needed(after, position, account):
                pass  # it is undone while the saga goes on
            elif undo:
                undone = True
                self._judge_undo(after, ledger, position, account, effect.step)
            else:
                self._judge_do(before, position, account, undone=undone)
            self._judge_key(before, position, item, account, effect, undo=undo)
            new = Account.UNDO_SENT if undo else Account.SENT
            items = len(after.steps[position].items)
            ledger = _replaced(ledger, position, with_account(ledger[position], item, new, items))
        return ledger

    def _judge_do(self, before: SagaState | None, position: int, account: Account, *, undone: bool) -> None:
        step = self.definition.steps[position]
        if undone or (before is not None and before.direction is _UNDO):
            self._break(Property.FORWARD_ORDER, step.key, "is asked to do something while the saga compensates")
        if account not in (Account.NEVER, Account.SENT):
            self._break(Property.FORWARD_ORDER, step.key, "is asked again after its outcome was recorded")

    def _judge_beginnings(self, before: SagaState | None, after: SagaState) -> None:
        """Whatever has begun, all that it requires was settled."""
        if after.direction is _UNDO:
            return  # what began and was ended in the same turn is judged as an undo
        for position, step in enumerate(after.steps):
            old = before.steps[position] if before is not None else None
            began = step is not old and step.status is not StepStatus.PENDING
            if not position or not began or (old is not None and old.status is not StepStatus.PENDING):
                continue
            requires = self.definition.steps[position].requires
            open_ = [
                self.definition.steps[other].key for other in requires if after.steps[other].status not in _SETTLED
            ]
            if open_:
                self._break(Property.FORWARD_ORDER, step.key, f"begins before {', '.join(open_)} is settled")

    def _judge_branches(self, before: SagaState | None, after: SagaState) -> None:
        """Of a choice exactly one branch is taken; what lies in the others, or is not called for, is skipped."""
        for position, (step, stands) in enumerate(zip(self.definition.steps, after.steps, strict=True)):
            old = before.steps[position].status if before is not None else StepStatus.PENDING
            if old is not StepStatus.PENDING or stands.status is StepStatus.PENDING:
                continue
            skipped = stands.status is StepStatus.SKIPPED
            if step.activity is Activity.CHOICE and not skipped:
                branches = [after.steps[position + 1 + number].status for number in range(len(step.options))]
                others = [status for status in branches if status is not StepStatus.SUCCEEDED]
                if len(branches) != len(others) + 1 or set(others) - {StepStatus.SKIPPED}:
                    self._break(Property.BRANCHES, step.key, "does not take exactly one of its branches")
            apart = [branch for branch in step.only_in if after.steps[branch].status is not StepStatus.SUCCEEDED]
            unwanted = step.instead_of is not None and after.steps[step.instead_of].status is not StepStatus.DECLINED
            if (apart or unwanted) and not skipped:
                what = self.definition.steps[apart[0] if apart else step.instead_of or 0].key
                words = f"begins though {what} was {'not taken' if apart else 'not declined'}"
                self._break(Property.BRANCHES, step.key, words)
            always = step.when is None and step.activity is not Activity.BRANCH
            if skipped and not apart and not unwanted and always and after.direction is _DO:
                self._break(Property.BRANCHES, step.key, "is skipped, and nothing says so")

    def _judge_declined(self, before: SagaState, after: SagaState, ledger: Ledger, input_: Input) -> None:
        """What is tolerated leaves nothing, and turns nothing round; nothing else is called declined."""
        for position, step in enumerate(after.steps):
            if step is before.steps[position] or self.definition.steps[position].policy is None:
                continue
            for cell in step.items or (step,):
                account = account_of(ledger[position], cell.key if step.items else "")
                declined = cell.status is StepStatus.DECLINED
                if declined and account not in (Account.NOT_DONE, Account.NEVER):
                    self._break(Property.DECLINED, step.key, "is declined, and something was done")
                if not declined and account is Account.NOT_DONE and after.direction is _DO and not step.items:
                    self._break(Property.DECLINED, step.key, f"was declined, and is {cell.status.value}")
        if isinstance(input_, Replied) and before.direction is _DO and after.cause is not None:
            step_ = self.definition.step(input_.step)
            if type(input_.reply) in step_.tolerated and after.cause.reply is input_.reply:
                self._break(Property.DECLINED, step_.key, "tolerates a failure, and it turns the saga round")

    def _judge_events(self, before: SagaState | None, after: SagaState, input_: Input, decision: Decision) -> None:
        """An event is published once, in the decision that settles its step; a reminder, when its timer fires."""
        published = [effect for effect in decision.effects if isinstance(effect, PublishEvent)]
        expected: list[str] = []
        told_only = after.parent is not None and self.definition.kind is Kind.COMPENSATABLE
        for position, step in enumerate(self.definition.steps):
            old = before.steps[position].status if before is not None else StepStatus.PENDING
            settles = old is StepStatus.PENDING and after.steps[position].status is StepStatus.SUCCEEDED
            if settles and (step.activity is Activity.EVENT or (step.activity is Activity.RESULT and not told_only)):
                expected.append(step.key)
        if before is not None and isinstance(input_, TimerFired) and input_.timer.kind is TimerKind.WAIT:
            cell = before.step(input_.timer.step)
            if input_.at_milliseconds < cell.give_up_milliseconds:
                expected.append(cell.key)
        if sorted(effect.step for effect in published) != sorted(expected):
            named = ", ".join(effect.step for effect in published) or "nothing"
            self._break(Property.EVENTS, ", ".join(expected), f"publishes {named}")
        if before is not None and before.direction is _UNDO and published:
            self._break(Property.EVENTS, published[0].step, "is published while the saga compensates")

    def _judge_next(self, after: SagaState, decision: Decision) -> None:
        """The next instance is started by the decision that completes this one, once at most."""
        nexts = [effect for effect in decision.effects if isinstance(effect, StartNext)]
        if len(nexts) > 1:
            self._break(Property.EVENTS, nexts[0].step, f"starts {len(nexts)} instances")
        if nexts and after.status is not Status.COMPLETED:
            self._break(Property.EVENTS, nexts[0].step, f"starts another while the saga is {after.status.value}")

    def _judge_undo(self, after: SagaState, ledger: Ledger, position: int, account: Account, key: str) -> None:
        definition = self.definition
        if account not in OWED:
            self._break(Property.UNDO_OWED, key, f"is undone, though it stands as {account.name.lower()}")
        step = definition.steps[position]
        if position and account is Account.SENT and step.undo is not None and step.undo.participant != step.participant:
            words = f"is undone by {step.undo.participant} while {step.participant} may still do it: two inboxes"
            self._break(Property.ONE_INBOX, key, words)
        if after.direction is _DO:
            self._break(Property.UNDO_OWED, key, "is undone while the saga goes forward")
        for later in range(position + 1, len(definition.steps)):
            follows = definition.descendants[position] >> later & 1 and self._in_order(position, later)
            if follows and definition.steps[later].undo is not None and owes(ledger[later]):
                other = definition.steps[later].key
                self._break(Property.UNDO_ORDER, key, f"is undone before {other}, which came after it")
        if not self._before_the_pivot(ledger, after):
            self._break(Property.PIVOT, key, "is undone though the pivot was sent and has not failed")

    def _not_needed(self, after: SagaState, position: int, account: Account) -> bool:
        """Say whether an item is undone because others are enough, or unanswered where others may be: no winner.

        Once sent, such an undo is retried whatever becomes of the saga.
        """
        if not self.definition.steps[position].enough:
            return False
        if account in (Account.UNDO_SENT, Account.UNDO_REFUSED):
            return True
        return after.direction is _DO and account is Account.SENT

    def _in_order(self, position: int, later: int) -> bool:
        """Say whether the undo of a step waits for that of one that came after it; the start's waits for all."""
        own, other = self.definition.steps[position].undo, self.definition.steps[later].undo
        return position == 0 or (own is not None and own.in_order and other is not None and other.in_order)

    def _before_the_pivot(self, ledger: Ledger, after: SagaState) -> bool:
        pivot = self.definition.pivot
        if pivot is None:
            refused = after.cause is not None and after.cause.kind is CauseKind.REFUSED
            return refused or not self.definition.committed_from_start
        return account_of(ledger[pivot], "") in (Account.NEVER, Account.NOT_DONE)

    def _judge_key(
        self, before: SagaState | None, position: int, item: str, account: Account, effect: _Attempt, *, undo: bool
    ) -> None:
        """A first command is attempt 1 of round 1; a retry counts on; only a refused undo begins a round."""
        attempt, round_ = 1, 1
        if before is not None and account is (Account.UNDO_SENT if undo else Account.SENT):
            cell = _cell(before, position, item)
            attempt, round_ = cell.attempt + 1, cell.round
        elif before is not None and undo and account is Account.UNDO_REFUSED:
            round_ = _cell(before, position, item).round + 1
        if (effect.attempt, effect.round) != (attempt, round_):
            found = f"attempt {effect.attempt} of round {effect.round}"
            self._break(Property.SAME_KEY, effect.step, f"is sent as {found}, and not as {attempt} of round {round_}")
        direction = _direction(effect)
        seen = (effect.step, item, direction, min(effect.round, 3))
        if not isinstance(effect, SendCommand) or seen in self._keys_seen:
            return
        self._keys_seen.add(seen)
        keys = {replace(effect, attempt=number).idempotency_key for number in (1, 2, 3)}
        others = {replace(effect, round=effect.round + 1).idempotency_key, replace(effect, item="x").idempotency_key}
        if len(keys) != 1 or keys & others:
            self._break(Property.SAME_KEY, effect.step, "attempts do not share one idempotency key of their own")
        if undo and effect.undoes != idempotency_key_of(effect.saga_id, effect.step, item, _DO, 1):
            self._break(Property.SAME_KEY, effect.step, "its undo does not name the command that it undoes")

    # --- timers -----------------------------------------------------------------------------------------------------

    def _judge_timers(self, before: SagaState | None, after: SagaState, input_: Input, decision: Decision) -> None:
        running = dict(timers_of(before, beside=after)) if before is not None else {}
        if isinstance(input_, TimerFired):
            running.pop(input_.timer, None)
        for effect in decision.effects:
            if isinstance(effect, SetTimer):
                running[effect.timer] = effect.due_milliseconds
            elif isinstance(effect, CancelTimer) and running.pop(effect.timer, None) is None:
                self._break(Property.TIMERS, effect.timer.step, f"cancels {effect.timer.key}, which does not run")
        expected = dict(timers_of(after, beside=before))
        for timer in [timer for timer in running if timer not in expected]:
            self._break(Property.TIMERS, timer.step, f"the timer {timer.key} runs on, and nothing waits for it")
        for timer, due in expected.items():
            if running.get(timer) != due:
                self._break(Property.TIMERS, timer.step, f"the timer {timer.key} does not run until {due}")
        for step, old in zip(after.steps, before.steps if before is not None else after.steps, strict=True):
            if step is old and before is not None:
                continue
            for cell in step.items or (step,):
                if (cell.status in _TIMED) != bool(cell.due_milliseconds):
                    self._break(Property.TIMERS, step.key, f"is {cell.status.value}, with no timer or a useless one")

    # --- how the saga stands ----------------------------------------------------------------------------------------

    def _judge_status(self, after: SagaState, ledger: Ledger) -> None:
        halted = [step.key for step in after.steps if any(c.status in NEED_A_PERSON for c in step.items or (step,))]
        if after.ended:
            if halted:
                self._break(Property.STATUS, halted[0], "needs a person, and the saga has ended")
        elif bool(halted) != (after.status is Status.STUCK):
            self._break(Property.STATUS, ", ".join(halted), f"needs a person, and the saga is {after.status.value}")
        elif not halted and (after.status is Status.RUNNING) != (after.direction is _DO):
            self._break(Property.STATUS, "", f"the saga is {after.status.value} and goes {after.direction.value}")
        if after.direction is _UNDO and not self._before_the_pivot(ledger, after):
            self._break(Property.PIVOT, "", "the saga starts compensating past its point of no return")

    def _judge_ending(self, before: SagaState | None, after: SagaState, ledger: Ledger, decision: Decision) -> None:
        finishes = [effect.status for effect in decision.effects if isinstance(effect, Finish)]
        ends = after.ended and not (before is not None and before.ended and before.status is after.status)
        if finishes != ([after.status] if ends else []):
            self._break(Property.ENDING, "", f"{len(finishes)} endings are told where the saga is {after.status.value}")
        answers = [effect for effect in decision.effects if isinstance(effect, AnswerParent)]
        asked_again = before is not None and before.ended and before.status is after.status
        if (ends or asked_again) and len(answers) != (after.parent is not None):
            self._break(Property.ENDING, "", f"the parent of a sub-saga is told {len(answers)} times how it ended")
        result = self.definition.result
        for answer in answers if result is not None else ():
            if (
                isinstance(answer.reply, SubsagaCompleted)
                and answer.reply.result is not after.steps[result or 0].result
            ):
                self._break(Property.ENDING, "result", "the parent of a sub-saga is told another result")
        if not after.ended:
            return
        for _, due in timers_of(after):
            self._break(Property.ENDING, "", f"the saga has ended, and a timer runs until {due}")
        if after.status is Status.COMPLETED:
            open_ = [step.key for step in after.steps if step.status not in _SETTLED]
            if open_:
                self._break(Property.ENDING, open_[0], "is not settled, and the saga has completed")
            for step, entry in zip(self.definition.steps, ledger, strict=True):
                may_be_done = isinstance(entry, tuple) and any(each in _OUT for each in entry)
                if step.enough and step.undo is not None and may_be_done:
                    words = "was not needed and may have been done, and is not undone at the end"
                    self._break(Property.UNDO_OWED, step.key, words)
        else:
            left = [
                step.key
                for step, entry in zip(self.definition.steps, ledger, strict=True)
                if step.undo is not None and owes(entry)
            ]
            if left:
                self._break(Property.UNDO_OWED, left[0], "was done, or may have been, and is not undone at the end")

    # --- what inputs mean -------------------------------------------------------------------------------------------

    def _judge_direction(self, before: SagaState, after: SagaState, ledger: Ledger, input_: Input) -> None:
        """Failure, cancel and the deadline before the pivot turn the saga round; it never turns back."""
        if before.direction is _UNDO:
            if after.direction is _DO:
                self._break(Property.PIVOT, "", "the saga goes forward again after it started compensating")
            return
        if after.direction is _UNDO and after.cause is None:
            self._break(Property.FAILURE, _subject(input_), "turns the saga round without a cause")
        fails = isinstance(input_, Replied) and not self.definition.step(input_.step).outcomes.get(type(input_.reply))
        if fails and isinstance(input_, Replied) and self.definition.step(input_.step).enough:
            fails = False  # others may still be enough; where they are not, nothing would ever go on
        if isinstance(input_, Signalled):
            position = self.definition.waits.get(type(input_.signal), 0)
            begun = before.steps[position].status is not StepStatus.PENDING
            fails = begun and not self.definition.steps[position].outcomes.get(type(input_.signal), position == 0)
            fails = fails or type(input_.signal) in self.definition.cancels
        asks = isinstance(input_, OperatorAsked) and input_.action in (Action.CANCEL, Action.COMPENSATE)
        if (fails or asks or isinstance(input_, ParentAsked)) and after.direction is _DO:
            self._break(Property.FAILURE, _subject(input_), "does not turn the saga round")
        if isinstance(input_, TimerFired) and input_.timer == SAGA_TIMER and after.direction is _DO:
            asking = [step.key for step in after.steps if step.status in _ASKING]
            if asking or self._before_the_pivot(ledger, after):
                self._break(Property.DEADLINE, ", ".join(asking), "goes on after the saga's deadline")

    def _judge_prolonged(self, before: SagaState, after: SagaState, input_: Signalled) -> None:
        """A wait that is prolonged goes on for so much longer, and no more often than it may be."""
        position = self.definition.prolongs[type(input_.signal)]
        prolong = self.definition.steps[position].prolong
        old, new = before.steps[position], after.steps[position]
        assert prolong is not None  # that is how it was found
        moved = new.give_up_milliseconds - old.give_up_milliseconds
        if new.status is not StepStatus.WAITING or moved != prolong.by_milliseconds or old.round > prolong.times_max:
            self._break(Property.POLICY, new.key, "is not prolonged as it says")

    def _judge_gathered(self, before: SagaState, after: SagaState, input_: Signalled) -> None:
        """A signal that is gathered is part of the result, moves no deadline, and ends the wait or lets it go on."""
        position = self.definition.gathers[type(input_.signal)]
        gather = self.definition.steps[position].gather
        old, new = before.steps[position], after.steps[position]
        assert gather is not None  # that is how it was found
        stands = (new.round, new.give_up_milliseconds, new.due_milliseconds)
        expected = (max(1, old.round) + 1, old.give_up_milliseconds, old.due_milliseconds)
        if old.round > gather.signals_max or type(new.result) is not gather.into:
            self._break(Property.POLICY, new.key, "does not gather as it says")
        elif new.status is old.status and stands != expected:
            self._break(Property.POLICY, new.key, "gathers a signal, and its deadline or its count is wrong then")
        elif new.status is not old.status and new.status is not StepStatus.SUCCEEDED and after.direction is _DO:
            self._break(Property.POLICY, new.key, f"gathers a signal, and is {new.status.value} then")

    def _judge_meaning(self, before: SagaState, after: SagaState, input_: Input) -> None:
        """A timer of a step does what the step's policy, or its wait, says; so does what prolongs a wait."""
        if isinstance(input_, Signalled) and type(input_.signal) in self.definition.prolongs:
            self._judge_prolonged(before, after, input_)
        if isinstance(input_, Signalled) and type(input_.signal) in self.definition.gathers:
            self._judge_gathered(before, after, input_)
        if not isinstance(input_, TimerFired) or input_.timer == SAGA_TIMER:
            return
        timer = input_.timer
        position = self.definition.index[timer.step]
        step = self.definition.steps[position]
        old, new = _cell(before, position, timer.item), _cell(after, position, timer.item)
        if timer.kind is TimerKind.ATTEMPT:
            used_up = old.attempt >= old.attempt_last or input_.at_milliseconds > old.give_up_milliseconds
            rests = new.status is (StepStatus.BACKOFF if timer.direction is _DO else StepStatus.UNDO_BACKOFF)
            if rests is used_up:
                words = "is tried again though its attempts are used up" if rests else "is given up too early"
                self._break(Property.POLICY, step.key, words)
            elif step.enough and timer.direction is _DO and after.direction is _DO:
                pass  # others may still be enough
            elif used_up and timer.direction is _DO and (step.kind is Kind.COMPENSATABLE) != (after.direction is _UNDO):
                self._break(Property.POLICY, step.key, "its attempts are used up, and the saga goes the wrong way")
        elif timer.kind is TimerKind.WAIT and input_.at_milliseconds < old.give_up_milliseconds:
            if new.status is not StepStatus.WAITING or new.give_up_milliseconds != old.give_up_milliseconds:
                self._break(Property.POLICY, step.key, f"reminds, and is {new.status.value} then")
        elif timer.kind is TimerKind.WAIT and not self._meant(step.activity, step.on_timeout, new, after):
            self._break(Property.POLICY, step.key, f"its time is over, and it is {new.status.value}")

    @staticmethod
    def _meant(activity: Activity, on_timeout: OnTimeout | None, cell: StepState, after: SagaState) -> bool:
        if activity is Activity.DELAY:
            return cell.status is StepStatus.SUCCEEDED
        if on_timeout is OnTimeout.PROCEED:
            return cell.status is StepStatus.SKIPPED or after.direction is _UNDO
        if on_timeout is OnTimeout.HALT:
            return cell.status is StepStatus.STUCK
        return after.direction is _UNDO


def _same_but_remembered(after: SagaState | None, before: SagaState, input_: Input) -> bool:
    """Say whether nothing has changed but that a request, which was refused, is remembered."""
    if after is None or not isinstance(input_, OperatorAsked | Signalled):
        return after == before
    new = set(after.recent) - set(before.recent)
    return new <= {(input_.id, input_.at_milliseconds)} and before == replace(
        after, recent=before.recent, forgotten_milliseconds=before.forgotten_milliseconds
    )


def timers_of(state: SagaState, beside: SagaState | None = None) -> Iterator[tuple[Timer, int]]:
    """Yield each timer that runs in a state, and when it is due; with `beside`, only those of the steps that differ."""
    if state.deadline_milliseconds:
        yield SAGA_TIMER, state.deadline_milliseconds
    for position, step in enumerate(state.steps):
        if beside is not None and beside.steps[position] is step:
            continue
        if not step.items and step.due_milliseconds:
            yield timer_of(step.key, "", step), step.due_milliseconds
        for item in step.items:
            if item.due_milliseconds:
                yield timer_of(step.key, item.key, item), item.due_milliseconds


def _direction(effect: _Attempt) -> Direction:
    if isinstance(effect, SendCommand):
        return effect.direction
    return _DO if isinstance(effect, StartSaga) else _UNDO


def _cell(state: SagaState, position: int, item: str) -> StepState:
    step = state.steps[position]
    return next((cell for cell in step.items if cell.key == item), step) if item else step


def _replaced(ledger: Ledger, position: int, entry: Account | tuple[Account, ...]) -> Ledger:
    return (*ledger[:position], entry, *ledger[position + 1 :])


def _subject(input_: Input) -> str:
    """Return the step that an input concerns, or what it is where it concerns none."""
    if isinstance(input_, Replied | OperatorAsked) and input_.step:
        return input_.step
    if isinstance(input_, TimerFired):
        return input_.timer.step or "deadline"
    if isinstance(input_, Signalled):
        return type(input_.signal).__name__
    if isinstance(input_, OperatorAsked):
        return input_.action.value
    return type(input_).__name__.lower()
