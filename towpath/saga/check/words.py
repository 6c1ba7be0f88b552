"""What happened, in words: one sentence for each input, unique among all that may happen in one state.

Files of tests hold these sentences and find the inputs again by them (see replay.py), so their form must not change.
"""

from towpath.saga.check.abstract import Oracle
from towpath.saga.check.explore import Happening
from towpath.saga.inputs import (
    Action,
    Input,
    OperatorAsked,
    ParentAsked,
    Replied,
    Signalled,
    Started,
    TimerFired,
    TimerKind,
    Undecidable,
    Unfit,
    UpgradeAsked,
)
from towpath.saga.state import Direction, SagaState, StepState

_ACTIONS = {
    Action.RETRY: "to retry",
    Action.SKIP: "to skip",
    Action.RESUME: "to resume",
    Action.CANCEL: "to cancel",
    Action.COMPENSATE: "to compensate",
}


def say(state: SagaState | None, happening: Happening, oracle: Oracle) -> str:
    """Say what happened in a state, and how conditions and lists came out."""
    choices = [oracle.words(choice) for choice in happening.choices]
    return ", ".join([say_input(state, happening.input), *choices])


def say_input(state: SagaState | None, input_: Input) -> str:  # noqa: PLR0911 - a case each
    """Say what an input is, as it looks in a state."""
    match input_:
        case Started():
            return f"{type(input_.event).__name__} {_starts(input_)}" + _stray(input_)
        case Replied():
            return _say_reply(state, input_)
        case TimerFired():
            return _say_timer(state, input_)
        case Signalled():
            again = state is not None and any(id_ == input_.id for id_, _ in state.recent)
            return f"{type(input_.signal).__name__} arrives" + (" once more" if again else "")
        case OperatorAsked():
            return _say_request(input_)
        case ParentAsked():
            return "the parent asks it to compensate" + _stray(input_)
        case UpgradeAsked():
            return f"an operator asks it to go on under version {input_.version}"
        case Unfit():
            return f"{say_input(state, input_.input)}, and what that leads to does not fit"
        case Undecidable():
            return f"{say_input(state, input_.input)}, and a function of the definition raises on it"
        case _:
            return f"{input_.what} arrives, which nothing takes"


def _starts(input_: Started) -> str:
    if input_.refused:
        return "would start the saga, and is refused"
    return "starts the saga again for its parent" if input_.id == "again" else "starts the saga"


def _stray(input_: Input) -> str:
    return " (stray)" if input_.id == "stray" else ""


def _say_reply(state: SagaState | None, input_: Replied) -> str:
    what = _place(input_.step, input_.item, input_.direction)
    said = f"{what} answers {type(input_.reply).__name__}"
    cell = _cell(state, input_.step, input_.item)
    if input_.id == "stray" or cell is None:
        return f"{said} to attempt {input_.attempt} of round {input_.round} (stray)"
    return said if input_.attempt == cell.attempt else f"{said} to an earlier attempt"


def _say_timer(state: SagaState | None, input_: TimerFired) -> str:
    timer = input_.timer
    if input_.id == "early":
        return f"the timer {timer.key} fires early"
    if input_.id == "stray":
        return f"the timer {timer.key} fires (stray)"
    if timer.kind is TimerKind.SAGA:
        return "the saga's deadline passes"
    what = _place(timer.step, timer.item, timer.direction)
    cell = _cell(state, timer.step, timer.item)
    late = cell is not None and input_.at_milliseconds > cell.give_up_milliseconds
    if timer.kind is TimerKind.WAIT and cell is not None and input_.at_milliseconds < cell.give_up_milliseconds:
        return f"{what} reminds"
    return {
        TimerKind.ATTEMPT: f"{what} is not answered in time" + (", nor until its attempts are over" if late else ""),
        TimerKind.BACKOFF: f"the pause of {what} is over",
        TimerKind.WAIT: f"the time of {what} is over",
    }[timer.kind]


def _say_request(input_: OperatorAsked) -> str:
    asked = [f"a person asks {_ACTIONS[input_.action]}"]
    if input_.step:
        asked.append(_place(input_.step, input_.item, Direction.DO))
    if input_.reply is not None:
        asked.append(f"by {type(input_.reply).__name__}")
    if not input_.actor or not input_.reason:
        asked.append("without saying " + ("who" if not input_.actor else "why"))
    return " ".join(asked)


def _place(step: str, item: str, direction: Direction) -> str:
    named = f"{step} {item}" if item else step
    return f"the undo of {named}" if direction is Direction.UNDO else named


def _cell(state: SagaState | None, key: str, item: str) -> StepState | None:
    for step in state.steps if state is not None else ():
        if step.key == key:
            return next((cell for cell in step.items if cell.key == item), step)
    return None
