"""Derived ids and jitter: what they are today they are for ever."""

import uuid

import pytest

from tests.unit.saga.support import OPENED, chain
from towpath.saga import days, hours, minutes, seconds
from towpath.saga.definition import Participant, Policy
from towpath.saga.durations import to_milliseconds
from towpath.saga.effects import SendCommand
from towpath.saga.inputs import Timer, TimerKind
from towpath.saga.keys import command_id_of, idempotency_key_of, jitter_milliseconds, saga_id_of
from towpath.saga.state import Cause, CauseKind, Direction, Status
from towpath.saga.testing import given

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "saga.towpath")


def test_ids_are_those_of_the_standard() -> None:
    """Version 5 ids, as any other language would derive them."""
    saga_id = saga_id_of("place_order", "e1")
    assert saga_id == str(uuid.uuid5(NAMESPACE, "place_order:e1"))
    key = idempotency_key_of(saga_id, "reserve", "0", "undo", 2)
    assert key == str(uuid.uuid5(uuid.UUID(saga_id), "reserve:0:undo:2"))
    assert command_id_of(key, 3) == str(uuid.uuid5(uuid.UUID(key), "3"))


def test_an_id_of_today_is_the_id_of_tomorrow() -> None:
    """Participants keep their answers under these keys: they must never change."""
    assert saga_id_of("place_order", "start") == "98fb6208-2038-5656-b47f-93f70c60f165"


@pytest.mark.parametrize("ceiling", [0, 1, 7, 1_000, 300_000])
def test_jitter_fills_its_range(ceiling: int) -> None:
    """From 0 to the ceiling, both met."""
    drawn = {jitter_milliseconds(f"{number}", ceiling) for number in range(200)}
    assert min(drawn) >= 0
    assert max(drawn) <= ceiling
    if ceiling < 10:
        assert drawn == set(range(ceiling + 1))


def test_pauses_double_up_to_their_ceiling() -> None:
    """first * factor ** (n - 1), at most `most`, however many attempts there were."""
    policy = Policy(1, 9, 1, 1_000, 20_000, 2)
    ceilings = [policy.ceiling_milliseconds(attempt) for attempt in (1, 2, 3, 4, 5, 6, 1_000_000)]
    assert ceilings == [1_000, 2_000, 4_000, 8_000, 16_000, 20_000, 20_000]


def test_durations_say_their_unit() -> None:
    """And are milliseconds inside."""
    assert [to_milliseconds(unit(2)) for unit in (seconds, minutes, hours, days)] == [2e3, 12e4, 72e5, 1728e5]
    assert to_milliseconds(seconds(0.0015)) == 1


def test_a_timer_has_one_key() -> None:
    """Kind, step, item, direction, attempt, round."""
    timer = Timer(TimerKind.BACKOFF, "pick", "3", Direction.UNDO, 2, 1)
    assert timer.key == "backoff:pick:3:undo:2:1"


def test_a_command_says_where_it_goes() -> None:
    """The participant's name gives its topic."""
    assert Participant("catalog").commands_topic == "catalog.commands"
    command = given(chain(), OPENED).expect_anything().decisions[0].effects[2]
    assert isinstance(command, SendCommand)
    assert command.idempotency_key == idempotency_key_of(command.saga_id, "first", "", "do", 1)


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (Cause(CauseKind.STEP_FAILED, "reserve", reply=OPENED), "reserve: Opened"),
        (Cause(CauseKind.STEP_EXHAUSTED, "reserve"), "reserve: step_exhausted"),
        (Cause(CauseKind.DEADLINE), "deadline"),
        (Cause(CauseKind.CANCELLED, actor="ada", reason="typo"), "cancelled by ada: typo"),
    ],
)
def test_a_cause_reads_as_words(cause: Cause, words: str) -> None:
    """What, where, who and why."""
    assert str(cause) == words


def test_a_state_gives_its_steps_by_key() -> None:
    """And says whether it has ended."""
    talk = given(chain(), OPENED).expect_anything()
    assert talk.state.step("first").key == "first"
    assert not talk.state.ended
    with pytest.raises(KeyError):
        talk.state.step("nowhere")
    assert talk.state.status is Status.RUNNING
