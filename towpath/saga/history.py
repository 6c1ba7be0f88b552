"""What the history says of each input: the facts that a `Record` carries, read off the input alone."""

from collections.abc import Callable
from typing import Any

from towpath.saga.effects import Happened, Record
from towpath.saga.inputs import (
    Hindered,
    Input,
    OperatorAsked,
    ParentAsked,
    Replied,
    Signalled,
    Started,
    TimerFired,
    Undecidable,
    Unfit,
    Unrecognised,
    UpgradeAsked,
)
from towpath.saga.state import Direction, Status

# happened, detail, step, item, direction, attempt, round, reason, actor: a Record's fields in their order
Facts = tuple[Happened, str, str, str, Direction, int, int, str, str]


def _started(i: Started) -> Facts:
    return (Happened.STARTED, type(i.event).__name__, "", "", Direction.DO, 0, 0, i.refused, "")


def _replied(i: Replied) -> Facts:
    return (Happened.REPLIED, type(i.reply).__name__, i.step, i.item, i.direction, i.attempt, i.round, "", "")


def _timer_fired(i: TimerFired) -> Facts:
    t = i.timer
    return (Happened.TIMER_FIRED, t.kind.value, t.step, t.item, t.direction, t.attempt, t.round, "", "")


def _signalled(i: Signalled) -> Facts:
    return (Happened.SIGNALLED, type(i.signal).__name__, "", "", Direction.DO, 0, 0, "", "")


def _operator_asked(i: OperatorAsked) -> Facts:
    return (Happened.OPERATOR_ASKED, i.action.value, i.step, i.item, i.direction, i.attempt, i.round, i.reason, i.actor)


def _parent_asked(i: ParentAsked) -> Facts:
    p = i.parent
    return (Happened.PARENT_ASKED, p.saga, "", "", p.direction, p.attempt, p.round, "", "")


def _upgrade_asked(i: UpgradeAsked) -> Facts:
    return (Happened.UPGRADED, f"to version {i.version}", "", "", Direction.DO, 0, 0, i.reason, i.actor)


def _unrecognised(i: Unrecognised) -> Facts:
    return (Happened.REFUSED, i.what, "", "", Direction.DO, 0, 0, "", "")


def _hindered(i: Hindered) -> Facts:
    facts = facts_of(i.input)
    return (*facts[:7], i.reason, facts[8])


_FACTS: dict[type, Callable[[Any], Facts]] = {
    Started: _started,
    Replied: _replied,
    TimerFired: _timer_fired,
    Signalled: _signalled,
    OperatorAsked: _operator_asked,
    ParentAsked: _parent_asked,
    UpgradeAsked: _upgrade_asked,
    Unfit: _hindered,
    Undecidable: _hindered,
    Unrecognised: _unrecognised,
}


def facts_of(input_: Input) -> Facts:
    """Return what happened, in a Record's fields from `happened` to `actor`."""
    return _FACTS[type(input_)](input_)


def refusal_of(input_: Input, saga_id: str, status: Status | None, reason: str) -> Record:
    """Return the entry that says why an input was refused; `status` is that of the instance, if there is one."""
    facts = facts_of(input_)
    return Record(saga_id, input_.id, input_.at_milliseconds, Happened.REFUSED, *facts[1:7], reason, facts[8], status)
