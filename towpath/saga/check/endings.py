"""What is judged of all states together: endings are reached from everywhere, and nothing is there in vain."""

from collections.abc import Iterator

from towpath.saga.check.explore import Exploration, Found
from towpath.saga.check.properties import Breach, Property
from towpath.saga.state import SagaState, Status, StepStatus

_SETTLED = (StepStatus.SUCCEEDED, StepStatus.SKIPPED, StepStatus.DECLINED)


def judge_graph(exploration: Exploration) -> Iterator[Found]:
    """Yield what the graph of all states breaks, each at the nearest state; nothing where the walk was cut short."""
    if not exploration.whole:
        yield Found(Breach(Property.TOO_LARGE, "", _covered(exploration)), -1)
        return
    if exploration.found:
        return  # the walk ends at each breach, so what lies beyond was not seen
    yield from _judge_endings(exploration)
    yield from _judge_use(exploration)


def _covered(exploration: Exploration) -> str:
    """Say what a walk that was cut short has covered all the same."""
    steps = exploration.definition.steps
    undoable = [position for position, step in enumerate(steps) if step.undo is not None]
    begun = len(exploration.begun - {0})
    return (
        f"there are more than {len(exploration.nodes) - 1:,} states, and nothing is proved of the whole. Covered is "
        f"every run of up to {exploration.inputs_covered} inputs: {begun} of {len(steps) - 1} steps "
        f"began, {len(exploration.undone)} of {len(undoable)} undos were sent. Raise the limit (--states-max), or move "
        "steps that run side by side into a sub-saga"
    )


def _judge_endings(exploration: Exploration) -> Iterator[Found]:
    ends = {number for number, node in enumerate(exploration.nodes) if node.state.ended}
    # Where a list is too long for its step, only another version of the definition can help: no breach of this one.
    excused = {number for number, node in enumerate(exploration.nodes) if _has_too_many_items(exploration, node.state)}
    alone = _reaching(exploration, ends, with_person=False)
    helped = _reaching(exploration, ends | excused, with_person=True)
    for number, node in enumerate(exploration.nodes):
        if node.state.status is not Status.STUCK and number not in alone:
            words = "from here no ending is reached without a person, whatever the replies"
            yield Found(Breach(Property.ENDS, _open_step(node.state), words), number)
            break
    for number, node in enumerate(exploration.nodes):
        if number not in helped:
            words = "from here not even a person can bring the saga to an ending"
            yield Found(Breach(Property.RECOVERABLE, _open_step(node.state), words), number)
            break


def _reaching(exploration: Exploration, targets: set[int], *, with_person: bool) -> set[int]:
    """Return the states from which one of the targets can be reached."""
    towards: list[list[int]] = [[] for _ in exploration.nodes]
    for number, node in enumerate(exploration.nodes):
        for target, by_person in node.edges:
            if with_person or not by_person:
                towards[target].append(number)
    reached = set(targets)
    open_ = list(targets)
    while open_:
        for source in towards[open_.pop()]:
            if source not in reached:
                reached.add(source)
                open_.append(source)
    return reached


def _judge_use(exploration: Exploration) -> Iterator[Found]:
    definition = exploration.definition
    if not any(node.state.status is Status.COMPLETED for node in exploration.nodes):
        yield Found(Breach(Property.COMPLETES, "", "in no state has the saga completed"), -1)
    for position, step in enumerate(definition.steps):
        if position and position not in exploration.begun:
            yield Found(Breach(Property.UNREACHABLE, step.key, "never begins"), -1)
        elif step.undo is not None and position not in exploration.undone:
            what = "the undo of the start event" if position == 0 else "its undo"
            words = f"{what} can never be owed: after it nothing can turn the saga round"
            yield Found(Breach(Property.UNREACHABLE, step.key, words), -1)


def _has_too_many_items(exploration: Exploration, state: SagaState) -> bool:
    """Say whether a list is too long for its step."""
    return any(
        step.status is StepStatus.STUCK and not step.items and defined.over is not None
        for step, defined in zip(state.steps, exploration.definition.steps, strict=True)
    )


def _open_step(state: SagaState) -> str:
    """Return the step that a state is about: the first that is neither settled nor out of reach."""
    names = [step.key for step in state.steps if step.status not in (*_SETTLED, StepStatus.PENDING)]
    return names[0] if names else ""
