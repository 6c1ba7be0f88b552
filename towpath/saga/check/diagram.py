"""A path as a Mermaid sequence diagram: who said what to whom, up to the point where the property breaks."""

from collections.abc import Iterator, Sequence

from towpath.saga.advance import Decision, advance
from towpath.saga.check.abstract import Abstraction, Choice
from towpath.saga.check.explore import Happening
from towpath.saga.check.words import say
from towpath.saga.definition import START_KEY, Activity, Definition
from towpath.saga.effects import CompensateSaga, Finish, PublishEvent, SendCommand, StartSaga
from towpath.saga.inputs import Input, OperatorAsked, ParentAsked, Replied, Signalled, TimerFired
from towpath.saga.state import Direction, SagaState


class Walk:
    """A path walked again: what happened in words, and what the machine decided each time."""

    def __init__(self, abstraction: Abstraction, path: Sequence[Happening]) -> None:
        self.abstraction = abstraction
        self.sentences: list[str] = []
        self.steps: list[tuple[Happening, Decision | None]] = []
        state: SagaState | None = None
        facts: tuple[Choice, ...] = ()
        for happening in path:
            self.sentences.append(say(state, happening, abstraction.oracle))
            abstraction.oracle.begin((), (*facts, *happening.choices))
            try:
                decision = advance(abstraction.definition, state, happening.input)
            except Exception:  # a decision that raises is told as the breach that it is
                self.steps.append((happening, None))
                return
            self.steps.append((happening, decision))
            lasting = abstraction.oracle.lasting
            facts = (*facts, *(choice for choice in happening.choices if choice.group in lasting))
            state = decision.state


def draw(walk: Walk, breach: str) -> str:
    """Return the walk as a Mermaid sequence diagram that ends with a note of the breach."""
    definition = walk.abstraction.concrete
    lines = ["sequenceDiagram", f"    participant saga as {definition.name}"]
    for (happening, decision), sentence in zip(walk.steps, walk.sentences, strict=True):
        lines.append(f"    {_spoken(definition, happening.input, sentence)}")
        if decision is not None:
            lines += [f"    {line}" for line in _answers(definition, decision)]
    lines.append(f"    Note over saga: {_safe(breach)}")
    return "\n".join(lines)


def _spoken(definition: Definition, input_: Input, sentence: str) -> str:
    if isinstance(input_, Replied) and input_.step in definition.index:
        step = definition.step(input_.step)
        undo = step.undo.participant if step.undo is not None and input_.direction is Direction.UNDO else ""
        return f"{undo or step.participant or _child(definition, input_.step)}-->>saga: {_safe(sentence)}"
    if isinstance(input_, Signalled):
        return f"outside-)saga: {_safe(sentence)}"
    if isinstance(input_, OperatorAsked):
        return f"person-)saga: {_safe(sentence)}"
    if isinstance(input_, ParentAsked):
        return f"parent-)saga: {_safe(sentence)}"
    if isinstance(input_, TimerFired):
        return f"saga->>saga: {_safe(sentence)}"
    return f"outside-)saga: {_safe(sentence)}"


def _answers(definition: Definition, decision: Decision) -> Iterator[str]:
    for effect in decision.effects:
        if isinstance(effect, SendCommand):
            undo = effect.direction is Direction.UNDO
            item = f" {effect.item}" if effect.item else ""
            tried = f" (attempt {effect.attempt})" if effect.attempt > 1 else ""
            yield f"saga->>{effect.participant}: {'undo ' if undo else ''}{effect.step}{item}{tried}"
        elif isinstance(effect, StartSaga):
            yield f"saga->>{effect.child}: start as {effect.step}{f' {effect.item}' if effect.item else ''}"
        elif isinstance(effect, CompensateSaga):
            yield f"saga->>{effect.child}: compensate{f' {effect.item}' if effect.item else ''}"
        elif isinstance(effect, PublishEvent):
            yield f"saga-)outside: {type(effect.event).__name__} of {effect.step}"
        elif isinstance(effect, Finish):
            yield f"Note over saga: {effect.status.value}"
    if decision.state is not None:
        for step, state in zip(definition.steps, decision.state.steps, strict=True):
            if step.activity is Activity.WAIT and step.key != START_KEY and state.due_milliseconds:
                yield f"Note over saga: waits for {step.key}"


def _child(definition: Definition, key: str) -> str:
    child = definition.step(key).child
    return child.name if child is not None else "outside"


def _safe(text: str) -> str:
    """Mermaid ends a message at a semicolon, and takes a number sign for an entity."""
    return text.replace(";", ",").replace("#", "number ")
