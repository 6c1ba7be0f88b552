"""One instance goes on under the next version of its definition: what `upgrade` judges, as a decision of the machine.

The one rule: a migration is an input like any other. It is decided by the state as it stands when the input is read,
not as a person saw it; it is written into the history, applied or refused with its reasons; and what the new version
lets begin, begins with it.
"""

from towpath.saga.advance import Decision, advance
from towpath.saga.definition import Definition
from towpath.saga.effects import Record
from towpath.saga.errors import BuilderError
from towpath.saga.history import facts_of, refusal_of
from towpath.saga.inputs import UpgradeAsked
from towpath.saga.state import SagaState
from towpath.saga.upgrade import Outcome, judge


def migrate(old: Definition, new: Definition | None, state: SagaState, asked: UpgradeAsked) -> Decision:
    """Decide whether `state`, an instance under `old`, goes on under `new`, None where that version is not deployed.

    Refused, it is left as it was, also where a function of the new version raises on its data.
    """
    refusal = _refusal(state, asked)
    if refusal is not None:
        return not_moved(state, asked, refusal)
    if new is None:
        return not_moved(state, asked, f"this worker was not deployed with version {asked.version}")
    try:
        return _moved(old, new, state, asked)
    except BuilderError as error:
        return not_moved(state, asked, str(error))


def _moved(old: Definition, new: Definition, state: SagaState, asked: UpgradeAsked) -> Decision:
    verdict = judge(old, new, state)
    if verdict.outcome is not Outcome.MIGRATE or verdict.state is None:
        return not_moved(state, asked, "; ".join(verdict.reasons))
    if state.ended:
        # A sub-saga that its parent may yet ask back: there is nothing to begin.
        return Decision(verdict.state, (_entry(verdict.state, asked),))
    return advance(new, verdict.state, asked)


def _refusal(state: SagaState, asked: UpgradeAsked) -> str | None:
    if not (asked.actor and asked.reason):
        return "a request of a person names the actor and the reason"
    if state.version == asked.version:
        return f"it is of version {asked.version} already"
    if state.ended and state.parent is None:
        return "the saga has ended"
    return None


def _entry(state: SagaState, asked: UpgradeAsked) -> Record:
    return Record(state.saga_id, asked.id, asked.at_milliseconds, *facts_of(asked), state.status)


def not_moved(state: SagaState, asked: UpgradeAsked, reason: str) -> Decision:
    """Return the decision that an instance stays as it was, for that reason."""
    return Decision(state, (refusal_of(asked, state.saga_id, state.status, reason),))
