"""Shadow runs held against the truth: worlds in which it is known what everybody would have answered to anything.

Both definitions are really run in such a world by a loop of this file's own; the shadow run sees only what the first
one's run recorded.
"""

import heapq
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.scenarios.craftygoods import SMALL
from tests.unit.replay.test_shadow import OLD, variant
from towpath.replay.shadow import Verdict, compare
from towpath.saga import Definition
from towpath.saga.advance import advance
from towpath.saga.definition import Activity
from towpath.saga.effects import CancelTimer, Finish, SendCommand, SetTimer
from towpath.saga.inputs import Input, Replied, Signalled, Started, TimerFired
from towpath.saga.state import SagaState, StepStatus
from towpath.saga.testing.samples import sample

WORLDS = 30
HOUR_MILLISECONDS = 3_600_000
INPUTS_MAX = 20_000
"""More than any world takes: an answer that comes after 40 hours has had an attempt a minute before it."""
LIMIT_CENTS = 1_000_00
SLOWEST_SEED = 2_470_631_962
Asked = tuple[str, str, int]
"""A step, do or undo, a round."""


@dataclass(frozen=True)
class World:
    """What anybody would answer to anything, and after how long: drawn once, the same for both definitions."""

    seed: int
    order: Any

    def answer(self, definition: Definition, asked: Asked) -> tuple[Any, int] | None:
        """Return the answer to a command or a wait and its delay in milliseconds; None where nobody ever answers."""
        chance = random.Random(f"{self.seed} {asked}")
        step = definition.steps[definition.index[asked[0]]]
        outcomes = step.undo.outcomes if asked[1] == "undo" and step.undo is not None else step.outcomes
        good = chance.random() < 0.85
        kinds = sorted(
            (kind for kind, succeeds in outcomes.items() if succeeds is good), key=lambda kind: kind.__name__
        )
        kinds = kinds or sorted(outcomes, key=lambda kind: kind.__name__)
        # People take hours, services mostly seconds.
        is_slow = chance.random() < (0.7 if step.activity is Activity.WAIT else 0.2)
        delay = chance.randrange(1, 40 * HOUR_MILLISECONDS if is_slow else 4_000)
        silent = chance.random() < 0.05
        reply = sample(chance.choice(kinds))
        return None if silent else (reply, delay)


@dataclass
class Truth:
    """One definition's run in a world: what it recorded, what others saw of it, and which waits it came to."""

    inputs: list[Input] = field(default_factory=list)
    seen: list[Any] = field(default_factory=list)
    waited: dict[str, int] = field(default_factory=dict)
    """When each wait began."""


class Running:
    """Runs one definition in a world, to its end."""

    def __init__(self, definition: Definition, world: World, decided_at: dict[str, int]) -> None:
        """`decided_at` are the times at which people decide, where that is known from the other run."""
        self.definition, self.world, self.decided_at = definition, world, decided_at
        self.truth = Truth()
        self.state: SagaState | None = None
        self.timers: dict[str, int] = {}
        self.asked: set[Asked] = set()
        self.queue: list[tuple[int, int, Input]] = []

    def run(self) -> Truth:
        """Return what happened."""
        self.push(0, Started("start", 0, self.world.order, self.world.order.order_id))
        while self.queue and len(self.truth.inputs) < INPUTS_MAX and not (self.state is not None and self.state.ended):
            at, _, input_ = heapq.heappop(self.queue)
            if isinstance(input_, TimerFired):
                if self.timers.get(input_.timer.key) != at:
                    continue
                del self.timers[input_.timer.key]
            self.decide(at, input_)
        return self.truth

    def decide(self, at: int, input_: Input) -> None:
        """Let the machine decide, and others see it."""
        self.truth.inputs.append(input_)
        decision = advance(self.definition, self.state, input_)
        self.state = decision.state
        seen: list[Any] = []
        for effect in decision.effects:
            if isinstance(effect, SetTimer):
                self.timers[effect.timer.key] = effect.due_milliseconds
                self.push(effect.due_milliseconds, TimerFired(f"timer {effect.timer.key}", effect.due_milliseconds,
                                                              effect.timer))  # fmt: skip
            elif isinstance(effect, CancelTimer):
                self.timers.pop(effect.timer.key, None)
            elif isinstance(effect, Finish):
                seen.append(("ends", effect.status.value))
            elif isinstance(effect, SendCommand):
                asked = effect.step, effect.direction.value, effect.round
                if asked not in self.asked:
                    self.asked.add(asked)
                    seen.append((*asked, effect.command))
                    self.ask(at, asked, lambda id_, due, reply, sent=effect: Replied(
                        id_, due, sent.step, sent.direction, 1, sent.round, reply, sent.item))  # fmt: skip
        for step, cell in zip(self.definition.steps, () if self.state is None else self.state.steps, strict=False):
            if (
                step.activity is Activity.WAIT
                and cell.status is StepStatus.WAITING
                and step.key not in self.truth.waited
            ):
                self.truth.waited[step.key] = at
                self.ask(at, (step.key, "do", 0), Signalled)
        if seen:
            self.truth.seen.append(sorted(seen, key=str))

    def ask(self, at: int, asked: Asked, made: Callable[..., Input]) -> None:
        """Let whoever is asked answer when the world says so."""
        answer = self.world.answer(self.definition, asked)
        if answer is not None:
            due = self.decided_at.get(asked[0], at + answer[1])
            self.push(due, made(f"answer {asked}", due, answer[0]))

    def push(self, at: int, input_: Input) -> None:
        """Let something come at a time."""
        heapq.heappush(self.queue, (at, len(self.queue) + len(self.truth.inputs), input_))


def decisions_of(truth: Truth) -> dict[str, int]:
    """Return when people decided, by the only wait of the saga."""
    times = [one.at_milliseconds for one in truth.inputs if isinstance(one, Signalled)]
    return dict(zip(truth.waited, times, strict=False))


def worlds(seed: int) -> Iterator[World]:
    """Yield worlds with orders on both sides of the limit."""
    chance = random.Random(seed)
    for number in range(WORLDS):
        cents = chance.choice([chance.randrange(1, LIMIT_CENTS), chance.randrange(LIMIT_CENTS + 1, 5 * LIMIT_CENTS)])
        yield World(chance.randrange(2**32), replace(SMALL, order_id=f"o-{number}", total_cents=cents))


SLOWEST = World(SLOWEST_SEED, replace(SMALL, order_id="o-slow", total_cents=99_685))
"""Its payment is captured after 40 hours."""
CHANGES = {
    "a renamed function": {
        "    authorise_payment,\n": '    block_amount,\n    key="authorise_payment",\n',
        "def authorise_payment(": "def block_amount(",
    },
    "a lower limit": {"APPROVAL_ABOVE_CENTS = 1_000_00": "APPROVAL_ABOVE_CENTS = 500_00"},
    "two steps swapped": {'    holds="stock",\n': '    holds="stock",\n    after=customer,\n'},
    "a shorter deadline": {"deadline=days(4)": "deadline=hours(20)", "hours(24)": "hours(10)"},
}


@pytest.mark.parametrize("change", CHANGES)
def test_exactly_the_instances_that_differ_are_found(change: str) -> None:
    """What is called the same is; what is called certainly different is; what ends otherwise is among what is told."""
    seed = random.randrange(2**32)
    sys.stdout.write(f"seed {seed}\n")
    new = variant(CHANGES[change])
    verdicts: dict[Verdict, int] = dict.fromkeys(Verdict, 0)
    for world in (*worlds(seed), SLOWEST):
        before = Running(OLD, world, {}).run()
        after = Running(new, world, decisions_of(before)).run()
        differs = before.seen != after.seen or before.waited.keys() != after.waited.keys()
        found = compare(OLD, new, before.inputs, sample, world.order.order_id)
        verdicts[found.verdict] += 1
        place = f"world {world.seed}, {world.order.total_cents} cents: {found}"
        if found.verdict is Verdict.SAME:
            assert not differs, f"{place}\n{before.seen}\n{after.seen}"
        if found.verdict is Verdict.DIFFERENT:
            assert differs, f"{place}\n{before.seen}"
        if found.whole and after.seen[-1][-1][0] == "ends":
            assert after.seen[-1][-1][1] in found.endings, f"{place}\n{after.seen}"
        if change != "two steps swapped":
            assert (found.verdict is not Verdict.SAME) == differs, f"{place}\n{before.seen}\n{after.seen}"
    assert change != "a renamed function" or verdicts[Verdict.SAME] == WORLDS + 1
