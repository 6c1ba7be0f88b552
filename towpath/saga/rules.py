"""The rules that a definition must obey, each raised where the step that breaks it is declared.

`Draft` gathers the steps of one saga as `Saga` (language.py) declares them. Handles point backwards only, so every rule
about the graph can be judged when a step is added, in the order of the source file.
"""

import inspect
import os.path
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from types import FrameType
from typing import Any

from towpath.saga import branches
from towpath.saga.definition import (
    ATTEMPTS_MAX,
    ITEMS_MAX,
    START_KEY,
    STEPS_MAX,
    Activity,
    Definition,
    GatherDefinition,
    Kind,
    OnTimeout,
    Participant,
    Policy,
    ProlongDefinition,
    RemindDefinition,
    SecondStart,
    StepDefinition,
    UndoDefinition,
)
from towpath.saga.durations import days, seconds, to_milliseconds
from towpath.saga.effects import SubsagaCompensated
from towpath.saga.errors import DefinitionError
from towpath.saga.parts import Backoff, Handles, StepParts, UndoParts, UndoSubsaga

_ROOM = os.path.dirname(__file__) + os.sep
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")  # 63: what PostgreSQL keeps of a name, and topics stay below 249

_LAST = (Activity.RESULT, Activity.NEXT)  # they come after all else

REMINDERS_MAX = 100  # of one wait: each is an event that somebody reads
GATHERED_MAX = 100  # signals of one wait: their ids are kept, 40 bytes each, until the saga is forgotten
PROLONGED_MAX = 100  # times, of one wait

STEP_ATTEMPTS = 3  # three attempts tell a lost message from a service that is away
UNDO_RETRIED_FOR = days(1)  # an undo is owed: it outlasts a night's outage before it calls a person


def _where() -> str:
    """Return file and line of the sentence that is being judged: the innermost frame outside this room."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_filename.startswith(_ROOM):
        frame = frame.f_back
    return "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


class Draft:
    """A definition in the making: `add` judges one step, `compile` ends it."""

    def __init__(
        self,
        name: str,
        *,
        version: int,
        starts_on: type,
        deadline: timedelta,
        undo: UndoParts | None,
        second_start: SecondStart,
        also_starts_on: tuple[type, ...] = (),
        cancels: tuple[type, ...] = (),
        keyed_by: Callable[..., str] | None = None,
    ) -> None:
        self.name = name
        self.version = version
        self.starts_on = starts_on
        self.deadline = deadline
        self.second_start = second_start
        self.also_starts_on = also_starts_on
        self.cancels = cancels
        self.keyed_by = keyed_by
        self.steps: list[StepDefinition] = []
        self._compiled: Definition | None = None
        if not _NAME.fullmatch(name):
            raise self._error("the name", "is not lower-case words joined by _", "rename it, as in place_order")
        if version < 1:
            raise self._error("the version", f"is {version}", "count versions from 1")
        if deadline < seconds(1):
            raise self._error("the deadline", f"is {deadline}", "give the whole saga a deadline, as in days(4)")
        start = StepDefinition(START_KEY, Kind.START, Activity.START)
        self.steps.append(start)
        if undo is not None:
            if not isinstance(undo.by, Participant):
                raise self._error("the undo of the start", "names no participant", "say who executes it: by=orders")
            self.steps[0] = replace(start, undo=self._undo(start, undo, 1, takes_cause=True))
        if keyed_by is not None:
            self._judge_function(START_KEY, keyed_by, ["the start event"])

    def add(self, parts: StepParts) -> int:
        """Judge a step and add it; return its position. Raises DefinitionError."""
        self._judge_name(parts.key, parts.activity)
        needs, after = self.positions_of(parts.key, parts.needs), self.positions_of(parts.key, parts.after)
        instead_of = self.positions_of(parts.key, parts.instead_of)
        requires = tuple(dict.fromkeys((*needs, *after, *instead_of))) or (0,)
        if parts.activity in _LAST:
            requires = self._sinks()
        step = StepDefinition(
            key=parts.key,
            kind=parts.kind,
            activity=parts.activity,
            requires=requires,
            needs=needs,
            participant=parts.participant.name if parts.participant else "",
            build=parts.build,
            outcomes=self._outcomes(parts.key, parts.succeeds, parts.fails),
            policy=self._policy(parts.key, parts.timing, parts.kind) if parts.timing is not None else None,
            when=parts.when,
            over=parts.over,
            items_max=parts.items_max,
            on_timeout=parts.on_timeout,
            wait_milliseconds=to_milliseconds(parts.wait) if parts.wait is not None else 0,
            child=parts.child,
            holds=parts.holds,
            touches=parts.touches,
            tolerated=parts.tolerated,
            instead_of=instead_of[0] if instead_of else None,
            options=parts.options,
            only_in=self._branches(parts, requires, needs),
            until=parts.until,
            remind=self._remind(parts),
            prolong=self._prolong(parts),
            keyed_by=parts.keyed_by,
            gather=parts.gather,
            enough=parts.enough,
            where=_where(),
        )
        if step.gather is not None:
            self._judge_gather(step, step.gather)
        self._judge_place(step)
        self._judge_branches(step)
        self._judge_functions(step)
        if step.child is not None:
            self._judge_second_start(step, step.child)
        if step.activity is Activity.WAIT or step.activity is Activity.DELAY:
            self._judge_wait(step)
        if step.over is not None and not 1 <= step.items_max <= ITEMS_MAX:
            raise self._step_error(
                step.key, f"has limit={step.items_max}", f"give its list a limit from 1 to {ITEMS_MAX}"
            )
        if not 0 <= step.enough <= step.items_max or (step.enough and step.tolerated):
            raise self._step_error(
                step.key,
                f"says enough={step.enough}" + (" and tolerates failures" if step.tolerated else ""),
                f"let 1 to {step.items_max} of its items be enough, and name its failures in fails=: they are declined",
            )
        if parts.undo is not None:
            step = replace(step, undo=self._undo(step, parts.undo, 1 if step.over is not None else 0))
        elif step.child is not None and step.kind is Kind.COMPENSATABLE:
            step = replace(step, undo=self._undo_of_child(step, parts.undo_subsaga))
        elif parts.undo_subsaga is not None:
            raise self._step_error(
                step.key, f"is {step.kind.value}, and says how it is undone", "leave undo= out: nothing undoes it"
            )
        if step.instead_of is not None:
            self._tolerate(step.instead_of)
        self.steps.append(step)
        return len(self.steps) - 1

    def compile(self) -> Definition:
        """End the definition: nothing can be added after that. Raises DefinitionError."""
        if self._compiled is None:
            if len(self.steps) == 1:
                raise self._error("it", "has no steps", "declare at least one, as in saga.step(...)")
            self._compiled = Definition(
                self.name,
                self.version,
                self.starts_on,
                to_milliseconds(self.deadline),
                tuple(self.steps),
                self.second_start,
                self.also_starts_on,
                self.cancels,
                self.keyed_by,
            )
        return self._compiled

    def region(self) -> Kind:
        """Return the kind that a wait or a delay has if it is declared now."""
        kinds = {step.kind for step in self.steps[1:]}
        return Kind.RETRIABLE if Kind.PIVOT in kinds or kinds == {Kind.RETRIABLE} else Kind.COMPENSATABLE

    def _error(self, what: str, cause: str, fix: str) -> DefinitionError:
        return DefinitionError(f"saga {self.name}: {what} {cause}", next_step=fix)

    def _step_error(self, key: str, cause: str, fix: str) -> DefinitionError:
        return self._error(f"step {key}", cause, fix)

    def _judge_name(self, key: str, activity: Activity) -> None:
        if self._compiled is not None:
            raise self._step_error(
                key, "is declared after the definition was used", "declare every step before that, in one module"
            )
        if self.steps[-1].activity is Activity.NEXT:
            raise self._step_error(key, "is declared after what starts the next", "declare saga.then_starts last")
        if self.steps[-1].activity is Activity.RESULT and activity is not Activity.NEXT:
            raise self._step_error(key, "is declared after the result", "declare the saga's result last")
        if not isinstance(key, str) or not _NAME.fullmatch(key):
            raise self._step_error(key, "is not lower-case words joined by _", 'give it a key: key="reserve_stock"')
        if any(step.key == key for step in self.steps):
            raise self._step_error(
                key, "is there already" if key != START_KEY else "is the start event", 'give it another key: key="..."'
            )
        if len(self.steps) >= STEPS_MAX:
            raise self._step_error(
                key, f"is one too many: a saga has at most {STEPS_MAX - 1}", "move some of them to a sub-saga"
            )

    def positions_of(self, key: str, handles: Handles | None) -> tuple[int, ...]:
        """Return the steps that handles stand for. Raises DefinitionError where they are none of this saga's."""
        if handles is None:
            return ()
        if not hasattr(handles, "positions"):
            raise self._step_error(
                key, f"needs {handles!r}, which is no handle", "join handles by &, as in needs=customer & stock"
            )
        if handles.draft is not self:
            raise self._step_error(
                key,
                f"needs a step of saga {handles.draft.name}",
                "need steps of the same saga; another saga is awaited by saga.subsaga",
            )
        return handles.positions

    def _ancestors(self, positions: tuple[int, ...]) -> set[int]:
        """Return all that is settled before a step that requires `positions` begins."""
        found: set[int] = {0}
        open_ = list(positions)
        while open_:
            position = open_.pop()
            if position not in found:
                found.add(position)
                open_.extend(self.steps[position].requires)
        return found

    def _judge_place(self, step: StepDefinition) -> None:
        """Before the pivot what can be undone, beside it nothing, after it what can be retried until it succeeds."""
        pivot = next((position for position, other in enumerate(self.steps) if other.kind is Kind.PIVOT), None)
        kinds = {other.kind for other in self.steps[1:]}
        before = self._ancestors(step.requires)
        if step.kind is Kind.PIVOT:
            beside = [other.key for position, other in enumerate(self.steps) if position not in before]
            if pivot is not None:
                raise self._step_error(
                    step.key,
                    f"is a second pivot beside {self.steps[pivot].key}",
                    "make one of them a step or retriable",
                )
            if Kind.RETRIABLE in kinds:
                raise self._step_error(
                    step.key, "follows retriable steps", "declare the pivot before them and let them need it"
                )
            if beside:
                raise self._step_error(
                    step.key,
                    f"is the pivot, and {', '.join(beside)} may still be under way when it is sent",
                    f"name them in its needs or after, as in after={' & '.join(beside)}",
                )
        elif step.kind is Kind.RETRIABLE:
            if pivot is None and kinds - {Kind.RETRIABLE}:
                raise self._step_error(
                    step.key, "is retriable, but no pivot precedes it", "declare the pivot first, or use saga.step"
                )
            if pivot is not None and pivot not in before:
                name = self.steps[pivot].key
                raise self._step_error(
                    step.key, f"may run beside the pivot {name}", f"let it come after {name}: needs= or after="
                )
        elif pivot is not None or Kind.RETRIABLE in kinds:
            raise self._step_error(
                step.key,
                "could not be undone: it is declared past the point of no return",
                "declare it before the pivot and let the pivot need it, or use saga.retriable",
            )

    def _judge_second_start(self, step: StepDefinition, child: Definition) -> None:
        """Two sub-sagas of one definition have the same business key, so the second start must be allowed."""
        before = self._ancestors(step.requires)
        for position, other in enumerate(self.steps):
            if other.child is None or other.child.name != child.name or child.second_start is SecondStart.INDEPENDENT:
                continue
            if any(each.over is not None or each.keyed_by is not None for each in (step, other)):
                continue  # with a key of its own it is another instance; that two of them collide is a refused start
            if position not in before or child.second_start is SecondStart.REFUSE_ALWAYS:
                raise self._step_error(
                    step.key,
                    f"starts saga {child.name} for a key that may have one, of {other.key}: it would be refused, since "
                    f"second_start is {child.second_start.name}",
                    f"let it come after {other.key}, with REFUSE_WHILE_OPEN, or say "
                    f'Saga("{child.name}", second_start=SecondStart.INDEPENDENT, ...)',
                )

    # --- branches, and what stands in for what --------------------------------------------------------------------

    def _sinks(self) -> tuple[int, ...]:
        """Return the steps after which nothing comes yet."""
        required = {position for step in self.steps for position in step.requires}
        return tuple(position for position in range(len(self.steps)) if position not in required)

    def _branches(self, parts: StepParts, requires: tuple[int, ...], needs: tuple[int, ...]) -> tuple[int, ...]:
        """Return the branches of choices in which a step lies."""
        if parts.activity in _LAST:
            requires = needs
        joins = branches.merged if parts.activity is Activity.MERGE else branches.inherited
        found = joins(self.steps, needs if parts.activity is Activity.MERGE else requires)
        if found and isinstance(found[0], str):
            raise self._step_error(parts.key, *found)
        return found  # what is wrong is told in words, and was raised

    def _judge_branches(self, step: StepDefinition) -> None:
        once = step.kind is Kind.PIVOT or step.activity in _LAST
        if once and step.only_in:
            names = ", ".join(self.steps[branch].key for branch in step.only_in)
            raise self._step_error(
                step.key,
                f"lies in the branch {names}, so that it may never begin",
                "join the branches: saga.merge(...)",
            )
        if step.kind is Kind.PIVOT and step.tolerated:
            raise self._step_error(step.key, "tolerates a failure of the pivot", "let a step before it fail instead")
        if step.instead_of is not None:
            wrong = branches.may_stand_in(self.steps, step.instead_of)
            if wrong is not None:
                raise self._step_error(step.key, *wrong)
        for position in step.requires:
            other = branches.replaced_by(self.steps, position)
            if other is not None and step.activity not in _LAST:
                raise self._step_error(
                    step.key,
                    f"needs {self.steps[position].key}, for which {self.steps[other].key} may stand in",
                    f"need {self.steps[other].key}, whose result is that of whichever was done",
                )

    def _tolerate(self, position: int) -> None:
        """Let the failures of a step be tolerated: another one stands in for it."""
        step = self.steps[position]
        failures = tuple(kind for kind, succeeds in step.outcomes.items() if not succeeds)
        self.steps[position] = replace(
            step, outcomes=dict.fromkeys(step.outcomes, True), tolerated=(*step.tolerated, *failures)
        )

    # --- reminders and moving deadlines ---------------------------------------------------------------------------

    def _remind(self, parts: StepParts) -> RemindDefinition | None:
        remind, within = parts.remind, parts.wait
        if remind is None or within is None:
            return None
        if not 1 <= remind.times <= REMINDERS_MAX or remind.every < seconds(1) or remind.every * remind.times >= within:
            raise self._step_error(
                parts.key,
                f"reminds {remind.times} times, every {remind.every}, and waits {within}",
                f"let 1 to {REMINDERS_MAX} reminders fit into the time that it waits",
            )
        return RemindDefinition(remind.build, remind.event, to_milliseconds(remind.every), remind.times)

    def _prolong(self, parts: StepParts) -> ProlongDefinition | None:
        prolong = parts.prolong
        if prolong is None:
            return None
        if not 1 <= prolong.times <= PROLONGED_MAX or prolong.by < seconds(1):
            raise self._step_error(
                parts.key,
                f"may be prolonged {prolong.times} times by {prolong.by}",
                f"let it be 1 to {PROLONGED_MAX} times",
            )
        return ProlongDefinition(prolong.on, to_milliseconds(prolong.by), prolong.times)

    def _judge_gather(self, step: StepDefinition, gather: GatherDefinition) -> None:
        limit = gather.signals_max
        if not 1 <= limit <= GATHERED_MAX:
            raise self._step_error(step.key, f"has limit={limit}", f"let it gather 1 to {GATHERED_MAX} signals")
        taken = [kind.__name__ for kind in gather.signals if self._takes(kind)]
        if taken:
            raise self._step_error(
                step.key, f"gathers {taken[0]}, which means something else already", "use another event"
            )
        twice = [kind.__name__ for kind in gather.signals if kind in step.outcomes]
        if twice:
            raise self._step_error(step.key, f"gathers {twice[0]}, which also ends it", "let one event do one thing")
        if gather.into in step.outcomes:
            cause = f"gathers into {gather.into.__name__}, which also ends it"
            raise self._step_error(step.key, cause, "gather into a class of its own")
        self._judge_function(step.key, gather.fold, ["the start event", "what was gathered so far", "a signal"])
        if gather.enough is not None:
            self._judge_function(step.key, gather.enough, ["the start event", "what was gathered"])

    def _takes(self, kind: type) -> bool:
        """Say whether a signal of that class means something to the saga already."""
        waits = [_takes(step) for step in self.steps if step.activity is Activity.WAIT]
        return kind in set[type]().union(*waits) | {*self.cancels, self.starts_on, *self.also_starts_on}

    def _judge_functions(self, step: StepDefinition) -> None:
        received = ["the start event", *(f"the result of {self.steps[need].key}" for need in step.needs)]
        item = ["an item"] if step.over is not None else []
        if step.build is not None:
            self._judge_function(step.key, step.build, received + item)
        if step.keyed_by is not None:
            self._judge_function(step.key, step.keyed_by, received + item)
        if step.when is not None:
            self._judge_function(step.key, step.when, received)
        if step.over is not None:
            self._judge_function(step.key, step.over, received)
        if step.until is not None:
            self._judge_function(step.key, step.until, received)
        if step.remind is not None:
            self._judge_function(step.key, step.remind.build, [*received, "the number of the reminder"])

    def _judge_function(self, key: str, function: Callable[..., object], received: list[str]) -> None:
        try:
            signature = inspect.signature(function)
        except ValueError:
            return  # a function written in C tells nothing about its parameters
        try:
            signature.bind(*received)
        except TypeError:
            name = getattr(function, "__name__", repr(function))
            raise self._step_error(
                key,
                f"calls {name}{signature}, which must take {len(received)} arguments: {', '.join(received)}",
                "change its parameters, or what the step needs",
            ) from None

    def _judge_wait(self, step: StepDefinition) -> None:
        if not 0 < step.wait_milliseconds <= step.wait_longest_milliseconds < to_milliseconds(self.deadline):
            raise self._step_error(
                step.key, "waits no time, or longer than the whole saga may take", "fix it, or the saga's deadline"
            )
        past = step.kind is Kind.RETRIABLE
        if past and (step.on_timeout is OnTimeout.COMPENSATE or not all(step.outcomes.values())):
            raise self._step_error(
                step.key,
                "may fail past the point of no return, where nothing is undone",
                "declare no `fails` and on_timeout=PROCEED or HALT, or let it precede the pivot",
            )
        for other in self.steps:
            shared = _takes(step) & _takes(other) if other.activity is Activity.WAIT else set()
            if shared:
                names = ", ".join(sorted(signal.__name__ for signal in shared))
                raise self._step_error(
                    step.key, f"waits for {names}, and so does {other.key}", "give each wait signals of its own"
                )

    def _outcomes(self, key: str, succeeds: tuple[type, ...], fails: tuple[type, ...]) -> dict[type, bool]:
        for reply in (*succeeds, *fails):
            if not isinstance(reply, type):
                raise self._step_error(key, f"declares {reply!r} as a reply", "name the record's class")
        both = set(succeeds) & set(fails)
        if both:
            names = ", ".join(sorted(reply.__name__ for reply in both))
            raise self._step_error(key, f"declares {names} as success and as failure", "choose one")
        return dict.fromkeys(succeeds, True) | dict.fromkeys(fails, False)

    def _policy(self, key: str, timing: Mapping[str, Any], kind: Kind) -> Policy:
        """Return the policy; past the pivot, attempts end with time alone unless they are counted."""
        within, retry_for = timing["within"], timing.get("retry_for", self.deadline)
        counted = STEP_ATTEMPTS if kind is Kind.COMPENSATABLE and "retry_for" not in timing else ATTEMPTS_MAX
        attempts = timing.get("attempts", counted)
        backoff: Backoff = timing.get("backoff", Backoff())
        if not timedelta(0) < within <= self.deadline:
            raise self._step_error(
                key, f"has within={within}", f"give one attempt a deadline below the saga's ({self.deadline})"
            )
        if not within <= retry_for:
            raise self._step_error(key, f"has retry_for={retry_for} below within={within}", "raise it, or leave it out")
        if not 1 <= attempts <= ATTEMPTS_MAX:
            raise self._step_error(key, f"has attempts={attempts}", "count the first attempt: from 1")
        if not timedelta(0) < backoff.first <= backoff.most or backoff.factor < 1:
            raise self._step_error(key, f"has {backoff}", "0 < first <= most, and a factor of at least 1")
        return Policy(
            to_milliseconds(within),
            attempts,
            to_milliseconds(retry_for),
            to_milliseconds(backoff.first),
            to_milliseconds(backoff.most),
            backoff.factor,
        )

    def _undo(self, step: StepDefinition, parts: UndoParts, extra: int, *, takes_cause: bool = False) -> UndoDefinition:
        needs = self.positions_of(step.key, parts.needs)
        late = [self.steps[need].key for need in needs if need not in self._ancestors(step.requires)]
        if late:
            raise self._step_error(
                step.key,
                f"has an undo that needs {', '.join(late)}, which may not be there when it is owed",
                "let the undo need only what comes before the step",
            )
        received = ["the start event", *(f"the result of {self.steps[need].key}" for need in needs)]
        last = "the cause" if takes_cause else "the item"
        self._judge_function(step.key, parts.command, received + [last] * extra)
        timing = dict(parts.timing)
        if step.policy is not None:
            timing.setdefault("within", timedelta(milliseconds=step.policy.within_milliseconds))
        timing.setdefault("retry_for", max(UNDO_RETRIED_FOR, timing["within"]))
        return UndoDefinition(
            participant=parts.by.name if parts.by else step.participant,
            build=parts.command,
            needs=needs,
            outcomes=self._outcomes(step.key, (parts.succeeds,), parts.fails),
            policy=self._policy(f"{step.key} (its undo)", timing, Kind.RETRIABLE),
            takes_cause=takes_cause,
            when_refused=parts.when_refused,
            in_order=parts.in_order,
        )

    def _undo_of_child(self, step: StepDefinition, said: UndoSubsaga | None) -> UndoDefinition:
        """A sub-saga undoes itself by its own policies; its parent waits once, by default as long as for its doing."""
        policy = step.policy
        if said is not None:
            timing = {"within": said.within, "attempts": 1}
            policy = self._policy(f"{step.key} (its undo)", timing, step.kind)
        assert policy is not None
        in_order = said is None or said.in_order
        return UndoDefinition("", None, (), {SubsagaCompensated: True}, policy, in_order=in_order)


def _takes(step: StepDefinition) -> set[type]:
    """Return the signals that mean something to a wait."""
    gathered = step.gather.signals if step.gather is not None else ()
    prolonging = (step.prolong.signal,) if step.prolong is not None else ()
    return {*step.outcomes, *gathered, *prolonging}
