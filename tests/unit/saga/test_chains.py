"""Instances that follow each other: what starts the next, under which key, and when there is none."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.saga.support import OPENED, Do, No, Opened, Yes, do, named, pivot, saga, service, step
from towpath.saga import NO_EFFECT, BuilderError, DefinitionError, Saga, SecondStart, hours, one_of, seconds
from towpath.saga.decision_builder import start_key_of
from towpath.saga.definition_snapshot import definition_of, definition_snapshot_of, fingerprint_of
from towpath.saga.effects import StartNext
from towpath.saga.state import StepStatus
from towpath.saga.testing import Conversation, given


def one_less(event: Opened, *_: Any) -> Opened | None:
    """Count down: a chain that ends."""
    return Opened(event.number - 1) if event.number > 1 else None


def monthly(build: Callable[..., Any] = one_less, **said: Any) -> Saga[Opened]:
    """Return a saga of a delay and a charge, which starts itself again."""
    made = saga("monthly", **said)
    month = made.delay("month", lasts=hours(24))
    charged = step(made, "charge", after=month)
    made.then_starts(build, needs=charged)
    return made


def played(number: int = 2, **said: Any) -> Conversation:
    """Return a conversation about an instance that has been charged."""
    talk = given(monthly(**said), Opened(number)).when_time_passes(hours(24)).expect(Do("charge"))
    return talk.when(Yes())


def test_the_next_is_started_when_the_last_has_completed() -> None:
    """By the same decision, under the same key, with an id that is the same however often it is sent."""
    talk = played().expect_next(Opened(1), key="key").expect_completed()
    (next_,) = [effect for effect in talk.decisions[-1].effects if isinstance(effect, StartNext)]
    again = given(monthly(), next_.event, id=next_.start_id, key=next_.next_key)
    assert again.state.saga_id != talk.state.saga_id
    assert again.state.event == Opened(1)
    talk.expect_step("next", StepStatus.SUCCEEDED)


def test_a_chain_ends_where_its_function_says_so() -> None:
    """None starts nothing, and the last instance completes as any other."""
    played(number=1).expect_nothing().expect_completed()


def test_nothing_follows_an_instance_that_compensates() -> None:
    """What was cancelled, or failed, does not go on by itself."""
    talk = given(monthly(), Opened(2)).when_time_passes(hours(24)).expect(Do("charge")).when(No())
    talk.expect_nothing().expect_compensated()


def test_the_next_has_the_key_that_events_are_given() -> None:
    """A saga that keys its start events keys those of its own chain alike."""
    played(keyed_by=lambda event: f"customer-{event.number}").expect_next(Opened(1), key="customer-1")


@pytest.mark.parametrize("found", ["", None, 7])
def test_a_start_event_without_a_key_is_told(found: object) -> None:
    """It is a fault of the definition on that data, and no instance begins under a wrong key."""
    definition = monthly(keyed_by=named("key_of", lambda event: found)).definition
    with pytest.raises(BuilderError, match="key_of returned"):
        start_key_of(definition, OPENED)
    broken = monthly(keyed_by=named("key_of", lambda event: event.nobody)).definition
    with pytest.raises(BuilderError, match="key_of raised"):
        start_key_of(broken, OPENED)


def test_what_does_not_start_the_saga_does_not_start_the_next() -> None:
    """The instance waits where it is, and the worker says why."""
    talk = given(monthly(lambda event, _: Yes()), Opened(2)).when_time_passes(hours(24)).expect(Do("charge"))
    with pytest.raises(BuilderError, match="returned a Yes, which does not start this saga"):
        talk.when(Yes())


def test_it_comes_after_the_result() -> None:
    """The result of each instance is published before the next begins."""
    made = saga("monthly")
    charged = step(made, "charge")
    made.result(named("sum_up", lambda event: Yes()), event=Yes)
    made.then_starts(one_less)
    assert made.definition.steps[-1].requires == (2,)
    talk = given(made, Opened(2)).expect(Do("charge")).when(Yes())
    talk.expect_event(Yes()).expect_next(Opened(1)).expect_completed()
    assert charged.key == "charge"


def test_past_the_pivot_too() -> None:
    """The chain goes on once all that must happen has."""
    made = saga("monthly")
    pivot(made)
    made.then_starts(one_less)
    given(made, Opened(2)).expect(Do("pivot")).when(Yes()).expect_next(Opened(1)).expect_completed()


def ends_last(made: Saga[Opened]) -> None:
    """Declare a step after what starts the next."""
    step(made, "charge")
    made.then_starts(one_less)
    step(made, "late")


def result_last(made: Saga[Opened]) -> None:
    """Declare the result after what starts the next."""
    step(made, "charge")
    made.then_starts(one_less)
    made.result(named("sum_up", lambda event: Yes()), event=Yes)


def awaited(made: Saga[Opened]) -> None:
    """Await a chain."""
    made.subsaga(monthly(), named("begin", lambda event: event), within=hours(1))


@pytest.mark.parametrize(
    ("declare", "words"),
    [
        (ends_last, "declared after what starts the next"),
        (result_last, "declared after what starts the next"),
        (awaited, "of which this saga would know nothing"),
    ],
)
def test_what_cannot_be_said_of_a_chain(declare: Callable[[Saga[Opened]], None], words: str) -> None:
    """Each is refused at import."""
    with pytest.raises(DefinitionError, match=words):
        declare(saga("monthly"))


def test_a_key_that_has_one_instance_for_ever_has_no_chain() -> None:
    """Each but the first would be refused."""
    with pytest.raises(DefinitionError, match="REFUSE_ALWAYS"):
        monthly(second_start=SecondStart.REFUSE_ALWAYS)


@pytest.mark.parametrize(
    ("keyed_by", "words"),
    [("order_id", "is no function"), (lambda: "", "must take 1 argument")],
)
def test_what_keys_a_start_event_is_a_function_of_it(keyed_by: Any, words: str) -> None:
    """Anything else is refused at import."""
    with pytest.raises(DefinitionError, match=words):
        saga(keyed_by=keyed_by)


def test_a_chain_is_part_of_what_is_recorded() -> None:
    """Snapshot and fingerprint tell a saga that keys its events, or goes on, from one that does not."""
    chain = monthly(keyed_by=named("key_of", lambda event: "key")).definition
    assert definition_snapshot_of(definition_of(definition_snapshot_of(chain))) == definition_snapshot_of(chain)
    plain = monthly().definition
    assert fingerprint_of(chain) != fingerprint_of(plain)
    assert "keyed_by" not in definition_snapshot_of(plain)


def test_several_events_may_start_it() -> None:
    """The next may begin with either of them."""
    made = Saga("monthly", version=1, starts_on=one_of(Opened, Yes), deadline=hours(9))
    made.step(service, do("charge"), undo=NO_EFFECT, succeeds=Yes, within=seconds(10))
    made.then_starts(named("by_hand", lambda event: Yes("next") if isinstance(event, Opened) else None))
    given(made, OPENED).expect(Do("charge")).when(Yes()).expect_next(Yes("next")).expect_completed()
    given(made, Yes()).expect(Do("charge")).when(Yes(), step="charge").expect_completed()


def test_nothing_follows_an_instance_whose_time_is_over() -> None:
    """During the delay there is nothing to undo, and nothing begins again."""
    given(monthly(), Opened(2)).when_its_deadline_passes().expect_nothing().expect_compensated()
