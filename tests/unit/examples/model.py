"""A world of its own for a saga: services, network and clock that know the saga by its messages alone.

Rule of this file: nothing here reads how the machine says that a step stands. What services did, and what they undid,
is kept by the services; what must hold is judged from messages and from the two endings.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Any, TypeVar

from towpath.saga import Definition, Saga, advance
from towpath.saga.advance import Decision
from towpath.saga.effects import (
    AnswerParent,
    CancelTimer,
    CompensateSaga,
    Happened,
    PublishEvent,
    Record,
    SendCommand,
    SetTimer,
    StartNext,
    StartSaga,
    SubsagaCompensated,
    SubsagaCompleted,
)
from towpath.saga.inputs import (
    Action,
    Input,
    OperatorAsked,
    ParentAsked,
    Replied,
    Signalled,
    Started,
    Timer,
    TimerFired,
)
from towpath.saga.state import Direction, ParentReference, SagaState, Status
from towpath.saga.testing.samples import sample

MOVES_MAX = 60
USUAL_SHARE = 0.75
BEGINNING_MILLISECONDS = 1_767_225_600_000  # 2026-01-01
SETTLED_AFTER_MAX = 3_000
MessageT = TypeVar("MessageT")
LOUD = (SendCommand, PublishEvent, StartNext, StartSaga, CompensateSaga)


@dataclass(frozen=True, slots=True)
class Story:
    """What a saga is about, in the words of its messages; written by hand, not read from the definition.

    `does` says for each command which replies mean that it was done, and which that it was not. `undoes` says for each
    undo which command (or commands) it takes back, and the reply. `pivot` is the point of no return, `result` what is
    published once. `child` is what the sagas are about that this one starts.
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
    child: "Story | None" = None
    for_each_child: type | None = None  # a command that stands, in the end, once for each child that completed


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


def lost_or_twice(messages: list[MessageT]) -> Iterator[Callable[[], None]]:
    """Yield what a network does to messages that are on their way."""
    for message in messages:
        yield partial(messages.remove, message)
        yield partial(messages.append, message)


@dataclass(slots=True)
class World:
    """What all instances of a history share: the clock, the dice, the numbers of messages."""

    seed: int
    dice: Random
    now: int = BEGINNING_MILLISECONDS
    ids: int = 0

    def id(self) -> str:
        """Return the id of the next message."""
        self.ids += 1
        return f"id-{self.ids}"


class Run:
    """One history of one saga, and of those that it starts, which are runs of their own in the same world."""

    def __init__(self, story: Story, world: World, start: Started | None = None, parent: "Run | None" = None) -> None:
        self.story = story
        self.world = world
        self.dice, self.seed = world.dice, world.seed
        self.definition: Definition = story.saga.definition
        self.services = Services(story, self.dice)
        self.state: SagaState | None = None
        self.parent = parent
        self.children: dict[str, Run] = {}
        self.never: set[str] = set()  # children that were asked back before they had begun: they never will
        self.letters: list[StartSaga | CompensateSaga] = []  # to children, on their way
        self.unread: list[SendCommand] = []
        self.replies: list[Replied] = []
        self.timers: dict[str, tuple[int, Timer]] = {}
        self.sent: list[SendCommand] = []
        self.published: list[PublishEvent] = []
        self.nexts: list[StartNext] = []
        self.heard: list[Input] = []
        self.give(start or Started("start", world.now, story.event, "key"))

    # --- a history ----------------------------------------------------------------------------------------------------

    def play(self) -> Status:
        """Let the world do its worst for a while, then its best; return how the saga ended."""
        for _ in range(self.dice.randrange(MOVES_MAX)):
            if self.ended:
                break
            usual = [move for run in self.family() for move in run.usual()]
            good = usual and self.dice.random() < USUAL_SHARE
            moves = usual if good else [move for run in self.family() for move in run.adverse()]
            self.dice.choice(moves)()
        for _ in range(SETTLED_AFTER_MAX):
            if not self._go_on():
                break
        else:
            raise Broken(f"seed {self.seed}: no ending")
        for run in self.family():
            assert run.state is not None
            run.judge_ending(run.state.status)
            run.judge_silence()
        assert self.state is not None
        return self.state.status

    def family(self) -> "list[Run]":
        """Return this run and those of its children."""
        return [self, *self.children.values()]

    @property
    def ended(self) -> bool:
        """Say whether one of the two endings was reached."""
        return self.state is not None and self.state.status in (Status.COMPLETED, Status.COMPENSATED)

    def usual(self) -> Iterator[Callable[[], None]]:
        """Yield what happens on a good day."""
        for sent in self.unread:
            yield partial(self._deliver, sent, kindly=False)
        for letter in self.letters:
            yield partial(self._hand_over, letter)
        for reply in self.replies:
            yield partial(self._hear, reply)
        if self.timers:
            yield partial(self._fire, *self._first_timer())
        for signal in self.story.signals:
            yield partial(self._say, signal)

    def adverse(self) -> Iterator[Callable[[], None]]:
        """Yield what happens on a bad one."""
        yield from lost_or_twice(self.unread)
        yield from lost_or_twice(self.letters)
        yield from lost_or_twice(self.replies)
        for due, timer in list(self.timers.values()):
            yield partial(self._fire, due, timer)
        yield partial(self._ask, Action.RESUME)
        if self.parent is None or self.dice.random() < 0.2:
            yield partial(self._ask, Action.CANCEL)

    def _first_timer(self) -> tuple[int, Timer]:
        return min(self.timers.values(), key=lambda each: (each[0], each[1].key))

    def _say(self, signal: Any) -> None:
        self.give(Signalled(self.world.id(), self.world.now, signal))

    def _ask(self, action: Action) -> None:
        self.give(OperatorAsked(self.world.id(), self.world.now, action, "ada", "test"))

    def _go_on(self) -> bool:
        """Do the next thing that a kind world does; return whether there was any."""
        runs = self.family()
        for run in runs:
            if run.unread:
                run._deliver(run.unread[0], kindly=True)
            elif run.letters:
                run._hand_over(run.letters[0])
            elif run.replies:
                run._hear(run.replies[0])
            else:
                continue
            return True
        open_ = [run for run in runs if not run.ended]
        stuck = [run for run in open_ if run.state is not None and run.state.status is Status.STUCK]
        timed = [run for run in open_ if run.timers]
        if stuck:
            stuck[0]._ask(Action.RESUME)
        elif timed:
            first = min(timed, key=lambda run: run._first_timer()[0])
            first._fire(*first._first_timer())
        elif open_:
            raise Broken(f"seed {self.seed}: nothing can happen any more")
        return bool(open_)

    def _deliver(self, sent: SendCommand, *, kindly: bool) -> None:
        self.unread.remove(sent)
        reply = self.services.execute(sent, kindly=kindly)
        if reply is not None:
            attempt, round_, now = sent.attempt, sent.round, self.world.now
            self.replies.append(
                Replied(self.world.id(), now, sent.step, sent.direction, attempt, round_, reply, sent.item)
            )

    def _hand_over(self, letter: StartSaga | CompensateSaga) -> None:
        """Let a letter reach a child; one that never began, and is asked back, never will, and left nothing behind."""
        self.letters.remove(letter)
        child, now = self.children.get(letter.child_saga_id), self.world.now
        if child is None and (isinstance(letter, CompensateSaga) or letter.child_saga_id in self.never):
            self.never.add(letter.child_saga_id)
            self.answered(letter.parent, SubsagaCompensated(letter.child, letter.child_saga_id))
        elif isinstance(letter, CompensateSaga):
            assert child is not None
            child.give(ParentAsked(self.world.id(), now, letter.parent))
        else:
            start = Started(letter.start_id, now, letter.event, letter.child_key or letter.key, letter.parent)
            if child is not None:
                child.give(start)
            else:
                assert self.story.child is not None
                self.children[letter.child_saga_id] = Run(self.story.child, self.world, start, self)

    def answered(self, asked: ParentReference, ending: SubsagaCompleted[object] | SubsagaCompensated) -> None:
        """Take on the way what a child says of its ending."""
        place = (asked.step, asked.direction, asked.attempt, asked.round)
        self.replies.append(Replied(self.world.id(), self.world.now, *place, ending, asked.item))

    def _hear(self, reply: Replied) -> None:
        self.replies.remove(reply)
        self.give(replace(reply, at_milliseconds=self.world.now))

    def _fire(self, due: int, timer: Timer) -> None:
        self.world.now = max(self.world.now, due + self.dice.randrange(1_000))
        self.timers.pop(timer.key, None)
        self.give(TimerFired(self.world.id(), self.world.now, timer))

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
                case StartSaga() | CompensateSaga():
                    self._judge_letter(effect)
                    self.letters.append(effect)
                case AnswerParent():
                    assert self.parent is not None
                    self.parent.answered(effect.parent, effect.reply)
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

    def _judge_letter(self, letter: StartSaga | CompensateSaga) -> None:
        backward = self.state is not None and self.state.direction is Direction.UNDO
        if isinstance(letter, CompensateSaga) and self.pivot_passed:
            raise Broken(f"seed {self.seed}: {letter.child} is asked back past the point of no return")
        if isinstance(letter, StartSaga) and backward:
            raise Broken(f"seed {self.seed}: {letter.child} is started while the saga compensates")

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
        # What a parent last asked is where it is answered, and it takes an answer to what it asked before as well.
        forgetful: dict[str, Any] = {"recent": (), "forgotten_milliseconds": 0, "parent": None}
        same = replace(after, **forgetful) == replace(before, **forgetful)
        loud = [effect for effect in again.effects if isinstance(effect, LOUD)]
        if not same or loud:
            raise Broken(f"seed {self.seed}: {what} changes something: {again.effects[0]}")

    # --- what must hold at the end ------------------------------------------------------------------------------------

    def judge_ending(self, status: Status) -> None:
        """Hold the ending against what the services did."""
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
        self._judge_children(status)
        nexts = [type(each.event) for each in self.nexts]
        if nexts != ([self.story.next] if status is Status.COMPLETED and self.story.next is not None else []):
            raise Broken(f"seed {self.seed}: {status.value}, and {nexts} is started next")
        if self.timers:
            raise Broken(f"seed {self.seed}: ended, and {list(self.timers)} run on")

    def _judge_children(self, status: Status) -> None:
        """No child is left that its parent does not know of, and none is counted that is not there."""
        completed = {id_ for id_, child in self.children.items() if child.completed}
        told = {
            input_.reply.saga_id
            for input_ in self.heard
            if isinstance(input_, Replied) and isinstance(input_.reply, SubsagaCompleted)
        }
        if status is Status.COMPENSATED and completed:
            raise Broken(f"seed {self.seed}: compensated, and {len(completed)} of what it started stand")
        if status is Status.COMPLETED and completed != told:
            raise Broken(f"seed {self.seed}: {len(completed)} of what it started stand, and it counts {len(told)}")
        if status is Status.COMPLETED and self.story.for_each_child is not None:
            done = sum(kind is self.story.for_each_child for kind in self.services.effects.values())
            if done != len(completed):
                raise Broken(f"seed {self.seed}: {self.story.for_each_child} stands {done} times of {len(completed)}")

    @property
    def completed(self) -> bool:
        """Say whether it completed, and was not asked back after that."""
        return self.state is not None and self.state.status is Status.COMPLETED

    def judge_silence(self) -> None:
        """After the ending nothing is heard any more."""
        world = self.world
        inputs = [*self.heard, *(Signalled(world.id(), world.now, signal) for signal in self.story.signals)]
        inputs.append(OperatorAsked(world.id(), world.now, Action.RESUME, "ada", "test"))
        for input_ in inputs:
            self._unchanged(advance(self.definition, self.state, input_), "what comes after the ending")


def _taken(decision: Decision) -> bool:
    entry = decision.effects[0]
    return isinstance(entry, Record) and entry.happened is not Happened.REFUSED


def play(story: Story, histories: int, seed: int = 0) -> dict[Status, int]:
    """Play so many histories; return how many came to which ending. Raises Broken, which names its seed."""
    counts = dict.fromkeys((Status.COMPLETED, Status.COMPENSATED), 0)
    for number in range(seed, seed + histories):
        counts[Run(story, World(number, Random(number))).play()] += 1
    return counts


def ok(*kinds: type) -> tuple[Any, ...]:
    """Return a sample of each record."""
    return tuple(sample(kind) for kind in kinds)
