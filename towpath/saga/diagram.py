"""Draws a saga from its definition, so that no diagram is ever out of date: as Mermaid here, as SVG in svg.py.

`flow_of` shows the steps in their order, with who does what and how it is undone; `states_of` shows how the saga as a
whole may stand and what leads from one to the other.
"""

from dataclasses import dataclass

from towpath.saga.definition import Activity, Definition, Kind, OnTimeout, StepDefinition
from towpath.saga.state import Status


@dataclass(frozen=True, slots=True)
class Box:
    """One node: `kind` is a Kind's or a Status's value and chooses its colour."""

    key: str
    lines: tuple[str, ...]
    kind: str


@dataclass(frozen=True, slots=True)
class Line:
    """One arrow, dashed where it goes back."""

    source: str
    target: str
    label: str = ""
    back: bool = False


@dataclass(frozen=True, slots=True)
class Graph:
    """A diagram before it is drawn: boxes in rows, from top to bottom."""

    title: str
    rows: tuple[tuple[Box, ...], ...]
    lines: tuple[Line, ...]


def flow_of(definition: Definition) -> Graph:
    """Return the steps of a saga in rows: a step stands below all that it requires."""
    depth: list[int] = []
    for step in definition.steps:
        depth.append(1 + max((depth[required] for required in step.requires), default=-1))
    rows = tuple(
        tuple(_box(definition, step) for step, at in zip(definition.steps, depth, strict=True) if at == row)
        for row in range(max(depth) + 1)
    )
    lines = tuple(
        Line(definition.steps[required].key, step.key)
        for step in definition.steps
        for required in step.requires
        # An arrow that others imply says nothing: a -> b -> c makes a -> c idle.
        if not any(definition.ancestors[other] >> required & 1 for other in step.requires)
    )
    return Graph(f"{definition.name} version {definition.version}", rows, lines)


def states_of(definition: Definition) -> Graph:
    """Return how the saga as a whole may stand."""
    compensates = not definition.committed_from_start
    turns = _what_turns_round(definition)
    pivot = definition.pivot
    halts = any(step.on_timeout is OnTimeout.HALT for step in definition.steps)
    rows: list[tuple[Box, ...]] = [
        (Box("begin", (_starts(definition),), "start"),),
        (_status(Status.RUNNING),),
    ]
    lines = [Line("begin", "running"), Line("running", "completed", "every step settled")]
    third = [_status(Status.COMPLETED)]
    if not compensates or pivot is not None or halts:
        third.append(_status(Status.STUCK))
        past = "attempts or time used up" if pivot is None else f"time used up from {definition.steps[pivot].key} on"
        lines += [
            Line("running", "stuck", "nobody decided" if compensates and pivot is None else past),
            Line("stuck", "running", "late answer, or a person", back=True),
        ]
    if compensates:
        lines += [Line("running", "compensating", turns), Line("compensating", "compensated", "all undone")]
        if any(step.undo is not None for step in definition.steps):
            if len(third) == 1:
                third.append(_status(Status.STUCK))
            lines += [
                Line("compensating", "stuck", "an undo fails"),
                Line("stuck", "compensating", "late answer, or a person", back=True),
            ]
        third.append(_status(Status.COMPENSATING))
    rows.append(tuple(third))
    if compensates:
        rows.append((_status(Status.COMPENSATED),))
    return Graph(f"{definition.name} version {definition.version}", tuple(rows), tuple(lines))


def _what_turns_round(definition: Definition) -> str:
    reasons = []
    if any(False in step.outcomes.values() for step in definition.steps):
        reasons.append("business failure")
    if any(step.kind is Kind.COMPENSATABLE and step.policy is not None for step in definition.steps):
        reasons.append("attempts used up")
    if any(step.on_timeout is OnTimeout.COMPENSATE for step in definition.steps):
        reasons.append("nobody decided")
    return ", ".join([*reasons, "deadline", "cancel"])


def _status(status: Status) -> Box:
    return Box(status.value, (status.value,), status.value)


def _box(definition: Definition, step: StepDefinition) -> Box:
    if step.activity is Activity.START:
        undo = f"undo: {step.undo.participant}" if step.undo is not None else ""
        cancels = ", ".join(kind.__name__ for kind in definition.cancels)
        cancels = f"cancelled by {cancels}" if cancels else ""
        keyed = f"keyed by {getattr(definition.keyed_by, '__name__', '')}" if definition.keyed_by is not None else ""
        return Box(step.key, tuple(filter(None, (_starts(definition), keyed, cancels, undo))), Kind.START.value)
    lines = [step.key, _what(step)]
    if step.keyed_by is not None:
        each = "each " if step.over is not None else ""
        lines.append(f"{each}keyed by {getattr(step.keyed_by, '__name__', 'a function')}")
    if step.when is not None:
        lines.append(f"when {getattr(step.when, '__name__', 'its condition holds')}")
    if step.instead_of is not None:
        lines.append(f"instead of {definition.steps[step.instead_of].key}")
    fails = [outcome.__name__ for outcome, succeeds in step.outcomes.items() if not succeeds]
    if fails:
        lines.append("fails: " + ", ".join(fails))
    if step.tolerated:
        lines.append("goes on after: " + ", ".join(kind.__name__ for kind in step.tolerated))
    lines += _moments(step)
    if step.undo is not None:
        name = getattr(step.undo.build, "__name__", "the saga undoes itself")
        lines.append(f"undo: {name}" + ("" if step.undo.in_order else ", in any order"))
    return Box(step.key, tuple(lines), step.kind.value)


def _starts(definition: Definition) -> str:
    return " or ".join(kind.__name__ for kind in definition.starts)


def _moments(step: StepDefinition) -> list[str]:
    """Return what a wait says of its reminders and of what prolongs it."""
    lines = []
    if step.remind is not None:
        every = _words(step.remind.every_milliseconds)
        lines.append(f"reminds: {step.remind.event.__name__}, every {every}, {step.remind.reminders_max} times at most")
    if step.gather is not None:
        kinds = ", ".join(kind.__name__ for kind in step.gather.signals)
        lines.append(f"gathers {kinds}, {step.gather.signals_max} at most, into {step.gather.into.__name__}")
        if step.gather.enough is not None:
            lines.append(f"until {getattr(step.gather.enough, '__name__', 'it is enough')}")
        ends = ", ".join(kind.__name__ for kind, succeeds in step.outcomes.items() if succeeds)
        lines += [f"ended by {ends}"] if ends else []
    if step.prolong is not None:
        by = _words(step.prolong.by_milliseconds)
        lines.append(f"prolonged: {step.prolong.signal.__name__}, by {by}, {step.prolong.times_max} times at most")
    return lines


_AT_ONCE = {Activity.BRANCH: "if it is chosen", Activity.MERGE: "joins the branches"}


def _what(step: StepDefinition) -> str:  # noqa: PLR0911 - a case each
    each = f", for each of up to {step.items_max}" if step.over is not None else ""
    each += f", of which {step.enough} {'is' if step.enough == 1 else 'are'} enough" if step.enough else ""
    if step.activity in _AT_ONCE:
        return _AT_ONCE[step.activity]
    if step.activity is Activity.CHOICE:
        return f"chooses by {getattr(step.build, '__name__', 'a function')}"
    if step.activity is Activity.NEXT:
        return f"starts the next by {getattr(step.build, '__name__', 'a function')}, or none"
    if step.activity in (Activity.EVENT, Activity.RESULT):
        return "publishes " + ", ".join(kind.__name__ for kind in step.outcomes)
    if step.until is not None:
        name = getattr(step.until, "__name__", "a time")
        return f"lasts until {name}, {_words(step.wait_milliseconds)} at most"
    if step.activity is Activity.WAIT:
        return f"waits {_words(step.wait_milliseconds)}, then {step.on_timeout.value if step.on_timeout else ''}"
    if step.activity is Activity.DELAY:
        return f"lasts {_words(step.wait_milliseconds)}"
    if step.child is not None:
        return f"saga {step.child.name} version {step.child.version}" + each
    return step.participant + each


def _words(milliseconds: int) -> str:
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)):
        if milliseconds >= size:
            return f"{milliseconds / size:g} {unit}"
    return f"{milliseconds} ms"


# --- Mermaid --------------------------------------------------------------------------------------------------------

# Fill and border of each kind; the same in both forms.
COLOURS = {
    "start": ("#eeeeee", "#555555"),
    "compensatable": ("#e3f0ff", "#1f6feb"),
    "pivot": ("#fff2cc", "#b58900"),
    "retriable": ("#e2f7e1", "#2da44e"),
    "running": ("#e3f0ff", "#1f6feb"),
    "compensating": ("#fff2cc", "#b58900"),
    "completed": ("#e2f7e1", "#2da44e"),
    "compensated": ("#eeeeee", "#555555"),
    "stuck": ("#ffe1de", "#cf222e"),
}


def to_mermaid(graph: Graph) -> str:
    """Return a graph as Mermaid text."""
    boxes = [box for row in graph.rows for box in row]
    # `end` and other words of Mermaid's own are no names for a node; a prefix keeps them apart.
    text = ["---", f"title: {graph.title}", "---", "flowchart TD"]
    text += [f'  s_{box.key}["{"<br/>".join(map(_mermaid_escape, box.lines))}"]:::{box.kind}' for box in boxes]
    for line in graph.lines:
        arrow = "-.->" if line.back else "-->"
        label = f'|"{_mermaid_escape(line.label)}"|' if line.label else ""
        text.append(f"  s_{line.source} {arrow}{label} s_{line.target}")
    for kind in dict.fromkeys(box.kind for box in boxes):
        fill, border = COLOURS[kind]
        text.append(f"  classDef {kind} fill:{fill},stroke:{border},color:#222222")
    return "\n".join(text) + "\n"


def _mermaid_escape(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
