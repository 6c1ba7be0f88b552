"""A world of its own for a saga: services, network and clock that know the saga by its messages alone.

Rule of this file: nothing here reads how the machine says that a step stands. What services did, and what they undid,
is kept by the services; what must hold is judged from messages and from the two endings.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Any

from towpath.saga import Definition, Saga, advance
from towpath.saga.advance import Decision
from towpath.saga.effects import (
    CancelTimer,
    Happened,
    PublishEvent,
    Record,
    SendCommand,
    SetTimer,
    StartNext,
)
from towpath.saga.inputs import Action, Input, OperatorAsked, Replied, Signalled, Started, Timer, TimerFired
from towpath.saga.state import Direction, SagaState, Status
from towpath.saga.testing.samples import sample

MOVES_MAX = 60
USUAL_SHARE = 0.75
BEGINNING_MILLISECONDS = 1_767_225_600_000  # 2026-01-01
SETTLED_AFTER_MAX = 3_000


@dataclass(frozen=True, slots=True)
class Story:
    """What a saga is about, in the words of its messages; written by hand, not read from the definition.

    `does` says for each command which replies mean that it was done, and which that it was not. `undoes` says for each
    undo which command (or commands) it takes back, and the reply. `pivot` is the point of no return, `result` what is
    published once.
    """

    saga: Saga[Any]
    event: Any
    does: Mapping[type, tuple[tuple[Any, ...], tuple[Any, ...]]]
    undoes: Mapping[type, tuple[type | tuple[type, ...] | None, Any]] = field(default_factory=dict)
    pivot: type | None = None
    result: type | None = None
    signals: tuple[Any, ...] = ()
    only_one_of: tuple[type, ...] = ()  # commands of which exactly one stands in the end
    not_needed: tuple[type, ...] = ()  # undos that are sent while the saga goes on: of what came second
    next: type | None = None  # what starts the next instance, once, where this one completes


class Broken(AssertionError):
    """A promise that was broken, with the history that led there."""


@dataclass(slots=True)
class Services:
    """All services of a story: one inbox each, known by idempotency key; the effects that exist now."""

    story: Story
    dice: Random
    recorded: dict[str, Any] = field(default_factory=dict)
    taken_back: set[str] = field(default_factory=set)  # keys of commands that were undone, or never will be done
    effects: dict[str, type] = field(default_factory=dict)
    asked: dict[str, object] = field(default_factory=dict)

    def execute(self, sent: SendCommand, *, kindly: bool) -> Any | None:
        """Carry out a command once, and return the recorded reply; None where its undo was there first."""
        key, command = sent.idempotency_key, sent.command
        if self.asked.setdefault(key, command) != command:
            raise Broken(f"{key} asks for {command} after {self.asked[key]}")
        if key in self.recorded:
            return self.recorded[key]
        if type(command) in self.story.undoes and sent.direction is Direction.UNDO:
            _, reply = self.story.undoes[type(command)]
            if sent.undoes is not None:
                self.taken_back.add(sent.undoes)
                self.effects.pop(sent.undoes, None)
            self.recorded[key] = reply
            return reply
        if key in self.taken_back:
            return None
        done, not_done = self.story.does[type(command)]
        reply = self.dice.choice(done if kindly or self.dice.random() < 0.75 or not not_done else not_done)
        self.recorded[key] = reply
        if reply in done:
            self.effects[key] = type(command)
        return reply


class Run:
    """One history of one saga."""

    def __init__(self, story: Story, seed: int) -> None:
        self.story = story
        self.seed = seed
        self.dice = Random(seed)
        self.definition: Definition = story.saga.definition
        self.services = Services(story, self.dice)
        self.state: SagaState | None = None
        self.now = BEGINNING_MILLISECONDS
        self.unread: list[SendCommand] = []
        self.replies: list[Replied] = []
        self.timers: dict[str, tuple[int, Timer]] = {}
        self.sent: list[SendCommand] = []
        self.published: list[PublishEvent] = []
        self.nexts: list[StartNext] = []
        self.heard: list[Input] = []
        self.ids = 0
        self.give(Started("start", self.now, story.event, "key"))

    # --- a history ----------------------------------------------------------------------------------------------------

    def play(self) -> Status:
        """Let the world do its worst for a while, then its best; return how the saga ended."""
        for _ in range(self.dice.randrange(MOVES_MAX)):
            if self.ended:
                break
            usual = list(self._usual())
            moves = usual if usual and self.dice.random() < USUAL_SHARE else list(self._adverse())
            self.dice.choice(moves)()
        for _ in range(SETTLED_AFTER_MAX):
            if not self._go_on():
                break
        else:
            raise Broken(f"seed {self.seed}: no ending")
        assert self.state is not None
        self._judge_ending(self.state.status)
        self._judge_silence()
        return self.state.status

    @property
    def ended(self) -> bool:
        """Say whether one of the two endings was reached."""
        return self.state is not None and self.state.status in (Status.COMPLETED, Status.COMPENSATED)

    def _usual(self) -> Iterator[Callable[[], None]]:
        for sent in self.unread:
            yield partial(self._deliver, sent, kindly=False)
        for reply in self.replies:
            yield partial(self._hear, reply)
        if self.timers:
            yield partial(self._fire, *min(self.timers.values(), key=lambda each: (each[0], each[1].key)))
        for signal in self.story.signals:
            yield partial(self._say, signal)

    def _adverse(self) -> Iterator[Callable[[], None]]:
        for sent in self.unread:
            yield partial(self.unread.remove, sent)  # lost
            yield partial(self.unread.append, sent)  # twice
        for reply in self.replies:
            yield partial(self.replies.remove, reply)
            yield partial(self.replies.append, reply)
        for due, timer in list(self.timers.values()):
            yield partial(self._fire, due, timer)
        yield partial(self._ask, Action.RESUME)
        yield partial(self._ask, Action.CANCEL)

    def _say(self, signal: Any) -> None:
        self.give(Signalled(self._id(), self.now, signal))

    def _ask(self, action: Action) -> None:
        self.give(OperatorAsked(self._id(), self.now, action, "ada", "test"))

    def _go_on(self) -> bool:
        """Do the next thing that a kind world does; return whether there was any."""
        if self.unread:
            self._deliver(self.unread[0], kindly=True)
        elif self.replies:
            self._hear(self.replies[0])
        elif self.ended:
            return False
        elif self.state is not None and self.state.status is Status.STUCK:
            self._ask(Action.RESUME)
        elif self.timers:
            due, timer = min(self.timers.values(), key=lambda each: (each[0], each[1].key))
            self._fire(due, timer)
        else:
            raise Broken(f"seed {self.seed}: nothing can happen any more")
        return True

    def _deliver(self, sent: SendCommand, *, kindly: bool) -> None:
        self.unread.remove(sent)
        reply = self.services.execute(sent, kindly=kindly)
        if reply is not None:
            self.replies.append(
                Replied(self._id(), self.now, sent.step, sent.direction, sent.attempt, sent.round, reply, sent.item)
            )

    def _hear(self, reply: Replied) -> None:
        self.replies.remove(reply)
        self.give(replace(reply, at_milliseconds=self.now))

    def _fire(self, due: int, timer: Timer) -> None:
        self.now = max(self.now, due + self.dice.randrange(1_000))
        self.timers.pop(timer.key, None)
        self.give(TimerFired(self._id(), self.now, timer))

    def _id(self) -> str:
        self.ids += 1
        return f"id-{self.ids}"

    # --- what must hold of every input --------------------------------------------------------------------------------

    def give(self, input_: Input) -> None:
        """Give the saga an input, once more at once, and take up what it sends."""
        decision = advance(self.definition, self.state, input_)
        self._take_up(decision)
        again = advance(self.definition, self.state, input_)
        self._unchanged(again, "the same input twice")
        if self.heard and self.dice.random() < 0.2:
            self._unchanged(advance(self.definition, self.state, self.dice.choice(self.heard)), "an old input")
        if _taken(decision):
            self.heard.append(input_)

    def _take_up(self, decision: Decision) -> None:
        self.state = decision.state
        for effect in decision.effects:
            match effect:
                case SendCommand():
                    self._judge_sending(effect)
                    self.unread.append(effect)
                    self.sent.append(effect)
                case PublishEvent():
                    if any(effect.event_id == other.event_id for other in self.published):
                        raise Broken(f"seed {self.seed}: {effect.event} is published twice")
                    self.published.append(effect)
                case StartNext():
                    self.nexts.append(effect)
                case SetTimer():
                    self.timers[effect.timer.key] = (effect.due_milliseconds, effect.timer)
                case CancelTimer():
                    self.timers.pop(effect.timer.key, None)
                case _:
                    pass

    def _judge_sending(self, effect: SendCommand) -> None:
        if type(effect.command) in self.story.not_needed:
            return
        if effect.direction is Direction.UNDO and self.pivot_passed:
            raise Broken(f"seed {self.seed}: {effect.command} is sent past the point of no return")
        if effect.direction is Direction.DO and any(self._goes_back(sent) for sent in self.sent):
            raise Broken(f"seed {self.seed}: {effect.command} is sent while the saga compensates")

    def _goes_back(self, sent: SendCommand) -> bool:
        return sent.direction is Direction.UNDO and type(sent.command) not in self.story.not_needed

    @property
    def pivot_passed(self) -> bool:
        """Say whether the pivot was sent, and its service did not refuse it."""
        keys = {sent.idempotency_key for sent in self.sent if type(sent.command) is self.story.pivot}
        _, not_done = self.story.does.get(self.story.pivot or object, ((), ()))
        return bool(keys) and not any(self.services.recorded.get(key) in not_done for key in keys)

    def _unchanged(self, again: Decision, what: str) -> None:
        before, after = self.state, again.state
        assert before is not None
        assert after is not None
        same = replace(after, recent=(), forgotten_milliseconds=0) == replace(
            before, recent=(), forgotten_milliseconds=0
        )
        loud = [effect for effect in again.effects if isinstance(effect, SendCommand | PublishEvent | StartNext)]
        if not same or loud:
            raise Broken(f"seed {self.seed}: {what} changes something: {again.effects[0]}")

    # --- what must hold at the end ------------------------------------------------------------------------------------

    def _judge_ending(self, status: Status) -> None:
        undone: set[type] = set()
        for kinds, _ in self.story.undoes.values():
            undone |= set(kinds) if isinstance(kinds, tuple) else {kinds} if kinds is not None else set()
        left = [kind.__name__ for kind in self.services.effects.values() if kind in undone]
        results = [each for each in self.published if type(each.event) is self.story.result]
        if status is Status.COMPENSATED:
            if left:
                raise Broken(f"seed {self.seed}: compensated, and {left} is still there")
            if self.story.pivot in self.services.effects.values():
                raise Broken(f"seed {self.seed}: compensated, and the pivot was done")
            if results:
                raise Broken(f"seed {self.seed}: compensated, and it came to {results[0].event}")
        else:
            if any(self._goes_back(sent) for sent in self.sent):
                raise Broken(f"seed {self.seed}: completed, and something was undone")
            if len(results) != (self.story.result is not None):
                raise Broken(f"seed {self.seed}: completed, and it came to {len(results)} results")
            standing = [kind for kind in self.services.effects.values() if kind in self.story.only_one_of]
            if self.story.only_one_of and len(standing) != 1:
                raise Broken(f"seed {self.seed}: completed, and {standing} stand")
            if self.story.pivot is not None and self.story.pivot not in self.services.effects.values():
                raise Broken(f"seed {self.seed}: completed without its pivot")
        nexts = [type(each.event) for each in self.nexts]
        if nexts != ([self.story.next] if status is Status.COMPLETED and self.story.next is not None else []):
            raise Broken(f"seed {self.seed}: {status.value}, and {nexts} is started next")
        if self.timers:
            raise Broken(f"seed {self.seed}: ended, and {list(self.timers)} run on")

    def _judge_silence(self) -> None:
        """After the ending nothing is heard any more."""
        inputs = [*self.heard, *(Signalled(self._id(), self.now, signal) for signal in self.story.signals)]
        inputs.append(OperatorAsked(self._id(), self.now, Action.RESUME, "ada", "test"))
        for input_ in inputs:
            self._unchanged(advance(self.definition, self.state, input_), "what comes after the ending")


def _taken(decision: Decision) -> bool:
    entry = decision.effects[0]
    return isinstance(entry, Record) and entry.happened is not Happened.REFUSED


def play(story: Story, histories: int, seed: int = 0) -> dict[Status, int]:
    """Play so many histories; return how many came to which ending. Raises Broken, which names its seed."""
    counts = dict.fromkeys((Status.COMPLETED, Status.COMPENSATED), 0)
    for number in range(seed, seed + histories):
        counts[Run(story, number).play()] += 1
    return counts


def ok(*kinds: type) -> tuple[Any, ...]:
    """Return a sample of each record."""
    return tuple(sample(kind) for kind in kinds)
