"""From one version of a saga to the next: which instances can go on under the new one, and why the others cannot.

An instance MIGRATES if everything that it owes and awaits is owed and awaited by the new version too, and if the new
version could have brought it where it stands:
 1. A step that has begun is there, does the same thing, for the same participant, on the same side of the pivot.
 2. A reply, signal or timer on its way means the same to the new version as to the old.
 3. What may have to be undone can be undone, by whoever was to undo it, and what its undo needs is there. A sub-saga
    that its parent may ask back is of the same kind to it as before.
 4. What has begun has its (new) requirements settled; what is undone has nothing after it (in the new order) left to
    undo; the point of no return has passed in both versions or in neither.
 5. A step that is gone owed nothing and awaited nothing. A step that has started sub-sagas is there and means the same
    ones: when this instance is over, they are told, and wait for it until then.
 6. What was decided stays decided: a branch that was taken, or was not, is there and belongs to a choice of the same
    name; a step that has begun lies in branches that are taken, and stands in only for what was declined; a failure
    that was tolerated is tolerated still.
Else it is PINNED: it ends under the old version, which must stay deployed until then. It is REFUSED if its state is not
one of the old version at all: nothing is guessed about it.

Classes are compared by name, since the two versions may have been read from different sources.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from towpath.saga.definition import Activity, Definition, StepDefinition
from towpath.saga.definition_snapshot import name_of
from towpath.saga.state import BEING_UNDONE, Direction, SagaState, StepState, StepStatus

_SETTLED = (StepStatus.SUCCEEDED, StepStatus.SKIPPED, StepStatus.DECLINED)
_OUT = (StepStatus.SENT, StepStatus.BACKOFF, StepStatus.WAITING, StepStatus.STUCK)
_MAY_BE_DONE = (StepStatus.SUCCEEDED, StepStatus.SENT, StepStatus.BACKOFF, StepStatus.STUCK, StepStatus.UNKNOWN)


class Outcome(StrEnum):
    """What becomes of an instance."""

    MIGRATE = "migrate"
    PIN = "pin"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome for one state; `state` is the migrated one, `reasons` say why there is none."""

    outcome: Outcome
    reasons: tuple[str, ...] = ()
    state: SagaState | None = None


@dataclass(slots=True)
class Group:
    """States with the same verdict: how many, and one of them in words."""

    outcome: Outcome
    reasons: tuple[str, ...]
    example: str
    count: int = 0


@dataclass(slots=True)
class UpgradeReport:
    """What becomes of a number of states.

    `ended` counts those that have nothing left to do (not sub-sagas, whose parents may ask for them yet), `already`
    those that are of the new version.
    """

    saga: str
    old_version: int
    new_version: int
    ended: int = 0
    already: int = 0
    groups: dict[tuple[Outcome, tuple[str, ...]], Group] = field(default_factory=dict)

    def count(self, outcome: Outcome) -> int:
        """Return how many states have that outcome."""
        return sum(group.count for group in self.groups.values() if group.outcome is outcome)


def comparable(old: Definition, new: Definition) -> tuple[str, ...]:
    """Say why two definitions are not two versions of one saga; empty if they are."""
    reasons = []
    if old.name != new.name:
        reasons.append(f"they define {old.name} and {new.name}")
    elif new.version <= old.version:
        reasons.append(f"version {new.version} does not follow version {old.version}")
    starts = [", ".join(name_of(kind) for kind in version.starts) for version in (old, new)]
    if not {name_of(kind) for kind in old.starts} <= {name_of(kind) for kind in new.starts}:
        reasons.append(f"they start on {starts[0]} and {starts[1]}")
    return tuple(reasons)


def report_on(old: Definition, new: Definition, states: Iterable[SagaState]) -> UpgradeReport:
    """Return what becomes of each of `states`, grouped by reason."""
    report = UpgradeReport(old.name, old.version, new.version)
    for state in states:
        if state.ended and state.parent is None:
            report.ended += 1
            continue
        if (state.saga, state.version) == (new.name, new.version) and new.version != old.version:
            report.already += 1
            continue
        verdict = judge(old, new, state)
        key = (verdict.outcome, verdict.reasons)
        if key not in report.groups:
            report.groups[key] = Group(verdict.outcome, verdict.reasons, words_for(state))
        report.groups[key].count += 1
    return report


def judge(old: Definition, new: Definition, state: SagaState) -> Verdict:
    """Say what becomes of an instance, by the rules on top of this file; with the migrated state if it has one."""
    strange = tuple(_strange(old, state))
    if strange:
        return Verdict(Outcome.REFUSE, strange)
    carried = tuple(
        state.steps[old.index[step.key]] if step.key in old.index else StepState(step.key) for step in new.steps
    )
    reasons = list(comparable(old, new))
    if state.parent is not None and old.kind is not new.kind:
        reasons.append(f"its parent started it as {old.kind.value}, and it is {new.kind.value} now")
    for before, cell in zip(old.steps, state.steps, strict=True):
        if not _begun(cell):
            continue
        if before.key in new.index:
            reasons += _not_carried(before, new.steps[new.index[before.key]], cell)
        else:
            reasons += _not_dropped(before, cell)
    reasons += _out_of_order(new, carried, state.direction)
    reasons += _out_of_branch(new, carried)
    if _committed(old, state.steps) is not _committed(new, carried):
        reasons.append("the point of no return has passed in one version and not in the other")
    if reasons:
        return Verdict(Outcome.PIN, tuple(dict.fromkeys(reasons)))
    return Verdict(Outcome.MIGRATE, (), replace(state, version=new.version, steps=carried))


def words_for(state: SagaState) -> str:
    """Say how an instance stands: its status, and every step that has begun."""
    steps = ", ".join(
        f"{step.key} {step.status.value}" for step in state.steps[1:] if step.status is not StepStatus.PENDING
    )
    return f"{state.status.value}: {steps or 'nothing begun'}"


# --- the rules --------------------------------------------------------------------------------------------------------


def _strange(old: Definition, state: SagaState) -> Iterator[str]:
    if (state.saga, state.version) != (old.name, old.version):
        yield f"it is an instance of {state.saga} version {state.version}"
    elif [step.key for step in state.steps] != [step.key for step in old.steps]:
        yield "its steps are not those of the old version: the definition was changed without a new version"


def _begun(cell: StepState) -> bool:
    return cell.status is not StepStatus.PENDING or cell.result is not None


def _cells(step: StepState) -> tuple[StepState, ...]:
    return step.items or (step,)


def _owes(step: StepDefinition, cell: StepState) -> bool:
    return step.undo is not None and any(each.status in _MAY_BE_DONE for each in _cells(cell))


def _not_carried(before: StepDefinition, after: StepDefinition, cell: StepState) -> Iterator[str]:
    """Rules 1 to 3, for a step that both versions have."""
    key = before.key
    if before.activity is not after.activity or (before.over is None) is not (after.over is None):
        yield f"{key} has begun as a {_what(before)} and is a {_what(after)} now"
        return
    if before.kind is not after.kind:
        yield f"{key} has begun as {before.kind.value} and is {after.kind.value} now"
    if _has_started_children(before, cell):
        yield from _other_child(before, after, cell)
    statuses = [each.status for each in _cells(cell)]
    if any(status in _OUT for status in statuses) or cell.status is StepStatus.PENDING:
        if before.participant != after.participant:
            yield f"{key} is out at {before.participant}, and {after.participant} does it now"
        if before.enough != after.enough:
            yield f"{key} awaits {before.enough or 'all'} of its items, and {after.enough or 'all'} now"
        yield from _misunderstood(key, before.outcomes, after.outcomes)
        yield from _not_awaited(before, after)
        lost = {name_of(kind) for kind in before.tolerated} ^ {name_of(kind) for kind in after.tolerated}
        if lost:
            yield f"{key} awaits {', '.join(sorted(lost))}, which is tolerated in one version and not in the other"
    results = {name_of(type(each.result)) for each in _cells(cell) if each.result is not None}
    declared = {name_of(reply) for reply in after.outcomes}
    declared |= {name_of(after.gather.into)} if after.gather is not None else set()
    unknown = sorted(results - declared)
    if unknown:
        yield f"{key} has the result {', '.join(unknown)}, which it no longer declares"
    declined = {name_of(type(each.result)) for each in _cells(cell) if each.status is StepStatus.DECLINED}
    if declined - {name_of(kind) for kind in after.tolerated}:
        yield f"{key} was declined with {', '.join(sorted(declined))}, which is not tolerated any more"
    yield from _undo_not_carried(before, after, cell)


def _undo_not_carried(before: StepDefinition, after: StepDefinition, cell: StepState) -> Iterator[str]:
    """Rules 1 to 3, for the undo that a step of both versions owes, or has sent."""
    key = before.key
    undoing = any(each.status in BEING_UNDONE for each in _cells(cell))
    if (undoing or _owes(before, cell)) and before.undo is not None:
        if after.undo is None:
            yield f"the undo of {key} is owed, and there is none any more"
            return
        was, is_ = before.undo.participant, after.undo.participant
        if was != is_:  # that one knows nothing of what the other one did, and would find nothing to undo
            yield f"the undo of {key} is {'out at' if undoing else 'for'} {was}, and {is_} does it now"
        if undoing:
            yield from _misunderstood(f"the undo of {key}", before.undo.outcomes, after.undo.outcomes)


def _has_started_children(step: StepDefinition, cell: StepState) -> bool:
    """Say whether sub-sagas may wait to be told that this instance is over."""
    begun = cell.status not in (StepStatus.PENDING, StepStatus.SKIPPED)
    return step.child is not None and begun and (step.over is None or bool(cell.items))


def _other_child(before: StepDefinition, after: StepDefinition, cell: StepState) -> Iterator[str]:
    """Rules 2, 3 and 5, for sub-sagas that were started: which they are, and by which key they are found."""
    if _child(before) != _child(after):
        word = "awaits" if any(each.status in _OUT for each in _cells(cell)) else "has started"
        yield f"{before.key} {word} the saga {_child(before)}, and starts {_child(after)} now"
    elif before.keyed_by != after.keyed_by and (before.keyed_by is None or after.keyed_by is None):
        yield f"{before.key} has given its sub-saga another key than it has now"


def _not_awaited(before: StepDefinition, after: StepDefinition) -> Iterator[str]:
    """Rule 2, for a wait that is under way: what it reminds with, and what prolongs it."""
    for word, was, is_ in (("reminds", before.remind, after.remind), ("is prolonged", before.prolong, after.prolong)):
        if (was is None) is not (is_ is None):
            yield f"{before.key} has begun as a wait that {word if was else f'is none that {word}'}, and is not now"
    if (before.gather is None) is not (after.gather is None):
        yield f"{before.key} {'gathers' if before.gather else 'gathers nothing'}, and is another kind of wait now"
    elif before.gather is not None and after.gather is not None:
        lost = {name_of(kind) for kind in before.gather.signals} - {name_of(kind) for kind in after.gather.signals}
        if lost:
            yield f"{before.key} gathers {', '.join(sorted(lost))}, which it takes no longer"
    was_, now = before.prolong, after.prolong
    if was_ is not None and now is not None and name_of(was_.signal) != name_of(now.signal):
        yield f"{before.key} awaits {name_of(was_.signal)}, which no longer prolongs it"


def _misunderstood(key: str, before: Mapping[type, bool], after: Mapping[type, bool]) -> Iterator[str]:
    """Name the replies on their way that mean something else now, or nothing."""
    now = {name_of(reply): succeeds for reply, succeeds in after.items()}
    for reply, succeeds in before.items():
        name = name_of(reply)
        if name not in now:
            yield f"{key} awaits {name}, which is no longer declared"
        elif now[name] is not succeeds:
            yield f"{key} awaits {name}, which meant {'success' if succeeds else 'failure'} and means the opposite now"


def _not_dropped(before: StepDefinition, cell: StepState) -> Iterator[str]:
    """Rule 5, for a step that is gone."""
    statuses = [each.status for each in _cells(cell)]
    if cell.status is StepStatus.PENDING:
        yield f"{before.key} is gone, and its answer has come already"
    elif any(status in _OUT or status in BEING_UNDONE for status in statuses):
        yield f"{before.key} is gone, and is under way"
    elif _owes(before, cell):
        yield f"{before.key} is gone, and its undo is owed"
    elif _has_started_children(before, cell):
        yield f"{before.key} is gone, and the saga {_child(before)} waits to hear that this one is over"


def _out_of_order(new: Definition, cells: tuple[StepState, ...], direction: Direction) -> Iterator[str]:
    """Rule 4, and what undos need (rule 3), in the order of the new version."""
    for position, (step, cell) in enumerate(zip(new.steps, cells, strict=True)):
        if direction is Direction.DO and cell.status is not StepStatus.PENDING:
            for required in step.requires:
                if cells[required].status not in _SETTLED:
                    yield f"{step.key} has begun, and {new.steps[required].key}, which it requires now, is not settled"
        if cell.status is StepStatus.UNDONE or cell.status in BEING_UNDONE:
            for later in range(position + 1, len(cells)):
                left = cells[later].status in BEING_UNDONE or _owes(new.steps[later], cells[later])
                if new.descendants[position] >> later & 1 and left:
                    yield f"{step.key} is undone, and {new.steps[later].key}, which comes after it now, is not"
        if step.undo is not None and (_owes(step, cell) or cell.status in BEING_UNDONE):
            for needed in step.undo.needs:
                if not _begun(cells[needed]):
                    yield f"the undo of {step.key} needs {new.steps[needed].key}, which has not begun"


def _out_of_branch(new: Definition, cells: tuple[StepState, ...]) -> Iterator[str]:
    """Rule 6, by the branches of the new version; a choice that was made has all its branches decided."""
    for position, (step, cell) in enumerate(zip(new.steps, cells, strict=True)):
        if step.activity is Activity.CHOICE and cell.status is StepStatus.SUCCEEDED:
            branches = cells[position + 1 : position + 1 + len(step.options)]
            if sum(branch.status is StepStatus.SUCCEEDED for branch in branches) != 1:
                yield f"{step.key} was decided between other branches"
        if cell.status in (StepStatus.PENDING, StepStatus.SKIPPED):
            continue
        for branch in step.only_in:
            if cells[branch].status is not StepStatus.SUCCEEDED:
                yield f"{step.key} has begun, and {new.steps[branch].key}, in which it lies now, is not taken"
        if step.instead_of is not None and cells[step.instead_of].status is not StepStatus.DECLINED:
            yield f"{step.key} has begun, and {new.steps[step.instead_of].key}, for which it stands in, is not declined"


def _committed(definition: Definition, cells: tuple[StepState, ...]) -> bool:
    pivot = definition.pivot
    return definition.committed_from_start if pivot is None else cells[pivot].status is not StepStatus.PENDING


def _what(step: StepDefinition) -> str:
    return f"{step.activity.value} for each item" if step.over is not None else step.activity.value


def _child(step: StepDefinition) -> str:
    return "" if step.child is None else step.child.name
