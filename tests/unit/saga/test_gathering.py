"""A wait that gathers signals into one record: m of n, in any order, each once, before it has begun or long after."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit.saga.course import PollClosed, Vote, Votes, count_vote, gathering, gathering_in_its_time
from tests.unit.saga.support import OPENED, Agreed, Denied, Do, Opened, Take, Undone, Yes, saga
from towpath.saga import COMPENSATE, HALT, PROCEED, BuilderError, DefinitionError, Prolong, Saga, hours
from towpath.saga.definition_snapshot import definition_of, definition_snapshot_of, fingerprint_of
from towpath.saga.inputs import Action
from towpath.saga.state import StepState, StepStatus
from towpath.saga.testing import Conversation, given
from towpath.saga.upgrade import judge


def begun(**said: Any) -> Conversation:
    """Return a conversation in which the wait has begun."""
    return given(gathering(**said), OPENED).expect(Do("before")).when(Yes())


def test_it_is_over_when_enough_has_come() -> None:
    """Two of five votes: what they were is the result."""
    talk = begun().when(Vote("ada")).expect_nothing().when(Vote("grace"))
    talk.expect(Do("pivot", (Votes(("ada", "grace")),))).when(Yes()).expect_completed()


def test_one_who_votes_twice_is_counted_as_the_fold_says() -> None:
    """What is m of n, and what is one of n twice, is the author's to say."""
    begun().when(Vote("ada")).when(Vote("ada")).expect_nothing().when(Vote("grace")).expect(
        Do("pivot", (Votes(("ada", "grace")),))
    )


def test_a_signal_that_is_delivered_twice_is_gathered_once() -> None:
    """A crash repeats it, and its id tells that from a second one."""
    talk = begun(enough=None).when(Vote("ada")).when_repeated().expect_refused("already applied")
    talk.when(Vote("grace")).when_repeated(2).expect_refused("already applied").when(PollClosed())
    talk.expect(Do("pivot", (Votes(("ada", "grace")),)))


def test_an_event_may_end_it() -> None:
    """With what has come, itself included."""
    begun().when(Vote("ada")).when(PollClosed()).expect(Do("pivot", (Votes(("ada",)),)))


def test_one_voice_may_turn_the_saga_round() -> None:
    """A veto is a failure, however many have agreed; what comes later is refused."""
    talk = begun().when(Vote("ada")).when(Denied()).expect(Take("before"))
    talk.when(Vote("grace")).expect_refused("compensates").when(Undone()).expect_compensated()


def test_too_few_in_its_time_compensate() -> None:
    """Where that is what its end means."""
    begun().when(Vote("ada")).when_time_passes(hours(24)).expect(Take("before")).when(Undone()).expect_compensated()


def test_its_deadline_stays_where_it_is() -> None:
    """Each signal has a timer of its own, which is due when the first was."""
    talk = begun().when_time_passes(hours(20)).when(Vote("ada")).when_time_passes(hours(3)).expect_nothing()
    talk.when_time_passes(hours(1)).expect(Take("before"))


def test_what_comes_early_is_gathered_too() -> None:
    """Before the wait has begun, in part or whole."""
    talk = given(gathering(), OPENED).expect(Do("before")).when(Vote("ada")).when(Yes()).expect_nothing()
    talk.when(Vote("grace")).expect(Do("pivot", (Votes(("ada", "grace")),)))
    whole = given(gathering(), OPENED).expect(Do("before")).when(Vote("ada")).when(Vote("grace"))
    whole.when(Vote("hilda")).when(Yes()).expect(Do("pivot", (Votes(("ada", "grace", "hilda")),)))


def test_what_ends_it_may_come_early() -> None:
    """It is over when it begins; nothing is gathered after what ended it."""
    talk = given(gathering(), OPENED).expect(Do("before")).when(Vote("ada")).when(PollClosed())
    talk.when(Vote("grace")).expect_refused("wait is over").when(PollClosed()).expect_refused("wait is over")
    talk.when(Yes()).expect(Do("pivot", (Votes(("ada",)),)))


def test_what_fails_it_may_come_early() -> None:
    """The saga starts compensating when it begins."""
    talk = given(gathering(), OPENED).expect(Do("before")).when(Vote("ada")).when(Denied()).when(Yes())
    talk.expect(Take("before")).when(Undone()).expect_compensated()
    assert talk.state.cause is not None
    assert talk.state.cause.reply == Denied()


def test_no_more_than_its_limit_are_gathered() -> None:
    """The sixth is refused; it is over by what ends it, or by its time."""
    talk = begun(enough=None)
    for name in "abcde":
        talk.when(Vote(name))
    talk.when(Vote("f")).expect_refused("5 signals").when(PollClosed()).expect(Do("pivot", (Votes(tuple("abcde")),)))


def test_what_comes_early_counts_to_the_limit() -> None:
    """Five before the wait are all; two before it leave three after it; halted, it goes on counting."""
    talk = given(gathering(enough=None), OPENED).expect(Do("before"))
    for name in "abcde":
        talk.when(Vote(name)).expect_nothing()
    talk.when(Vote("f")).expect_refused("5 signals were gathered already")
    talk = given(gathering(enough=None), OPENED).expect(Do("before")).when(Vote("a")).when(Vote("b")).when(Yes())
    for name in "cde":
        talk.when(Vote(name)).expect_step("votes", StepStatus.WAITING)
    talk.when(Vote("f")).expect_refused("5 signals were gathered already")
    talk = begun(enough=None, on_timeout=HALT).when(Vote("a")).when_time_passes(hours(24)).expect_stuck("votes")
    for name in "bcde":
        talk.when(Vote(name)).expect_stuck("votes")
    assert talk.state.step("votes").result == Votes(tuple("abcde"))
    talk.when(Vote("f")).expect_refused("5 signals were gathered already")


def test_what_comes_too_late_is_refused() -> None:
    """The wait is over, and what it has gathered is what its steps were told."""
    talk = begun().when(Vote("ada")).when(Vote("grace")).expect(Do("pivot", (Votes(("ada", "grace")),)))
    talk.when(Vote("hilda")).expect_refused("the wait is over").expect_step("votes", StepStatus.SUCCEEDED)
    assert talk.state.step("votes").result == Votes(("ada", "grace"))


def test_how_a_wait_that_gathers_stands() -> None:
    """Its timer has the round of its last signal, and is over when it said at first."""
    early = given(gathering(), OPENED).expect(Do("before")).when(Vote("ada")).when(PollClosed())
    stands = early.state.step("votes")
    assert (stands.status, stands.round, stands.attempt_last) == (StepStatus.PENDING, 2, 1)
    talk = begun().when(Vote("ada"))
    over = talk.state.started_milliseconds + int(hours(24).total_seconds()) * 1_000
    stands = talk.state.step("votes")
    assert stands == StepState("votes", StepStatus.WAITING, 1, 2, over, 1, over, Votes(("ada",)))


def test_ids_are_kept_for_as_many_as_may_come() -> None:
    """The first of a hundred is still told from its repetition, however many came after it."""
    talk = given(hundred(), OPENED)
    for number in range(99):
        talk.when(Vote(str(number)))
    talk.when_repeated(99).expect_refused("already applied")


def hundred() -> Saga[Opened]:
    """Return a saga that gathers as much as may be."""
    made = saga("hundred")
    made.gather(
        "votes",
        of=Vote,
        into=Votes,
        by=count_vote,
        limit=100,
        ended_by=PollClosed,
        within=hours(9),
        on_timeout=COMPENSATE,
    )
    return made


def test_it_may_go_on_with_what_has_come() -> None:
    """Or with None, where nothing has."""
    talk = given(gathering_in_its_time(), OPENED).expect(Do("pivot")).when(Yes()).when(Vote("ada"))
    talk.expect_anything().when_time_passes(hours(24)).expect_anything()
    assert talk.state.step("votes").result == Votes(("ada",))
    assert Do("count", (Votes(("ada",)),)) in sent(talk)
    none = given(gathering_in_its_time(), OPENED).expect(Do("pivot")).when(Yes())
    none.when_time_passes(hours(24)).expect_anything()
    assert Do("count", (None,)) in sent(none)


def sent(talk: Conversation) -> list[object]:
    """Return the commands of a conversation."""
    return [effect.command for decision in talk.decisions for effect in decision.effects if hasattr(effect, "command")]


def test_reminders_go_on_while_signals_come() -> None:
    """The second reminder is due when it was."""
    talk = given(gathering_in_its_time(), OPENED).expect(Do("pivot")).when(Yes())
    talk.when_time_passes(hours(10))
    assert len(talk.decisions[-1].effects) == 3
    talk.expect_anything().when(Vote("ada")).when_time_passes(hours(10)).expect_anything()
    assert talk.state.step("votes").status is StepStatus.WAITING
    assert talk.state.step("votes").result == Votes(("ada",))


def test_halted_it_still_gathers() -> None:
    """A late vote counts, and is what a person then need not skip."""
    talk = begun(on_timeout=HALT).when(Vote("ada")).when_time_passes(hours(24)).expect_stuck("votes")
    talk.when(Vote("ada")).expect_stuck("votes").when(Vote("grace")).expect(Do("pivot", (Votes(("ada", "grace")),)))


def test_a_person_may_end_or_begin_it_again() -> None:
    """Skipped, it is over with what has come; retried, it waits on with that."""
    talk = begun(on_timeout=HALT).when(Vote("ada")).when_time_passes(hours(24))
    talk.when_asked(Action.SKIP, step="votes", reply=PollClosed()).expect(Do("pivot", (Votes(("ada",)),)))
    again = begun(on_timeout=HALT).when(Vote("ada")).when_time_passes(hours(24))
    again.when_asked(Action.RETRY, step="votes").expect_step("votes", StepStatus.WAITING).when(Vote("grace"))
    again.expect(Do("pivot", (Votes(("ada", "grace")),)))


def strange(*_: Any) -> Any:
    """Return something else than what is gathered."""
    return Yes()


def test_a_fold_that_returns_something_else_is_told() -> None:
    """The instance stays as it is."""
    made = saga("odd")
    made.gather("votes", of=Vote, into=Votes, by=strange, limit=2, within=hours(1), on_timeout=PROCEED)
    with pytest.raises(BuilderError, match="returned a Yes, not the Votes that it gathers into"):
        given(made, OPENED).when(Vote("ada"))


# --- versions ---------------------------------------------------------------------------------------------------------


def test_what_is_gathered_is_part_of_what_is_recorded() -> None:
    """Snapshot and fingerprint tell it from another wait."""
    definition = gathering().definition
    assert definition_snapshot_of(definition_of(definition_snapshot_of(definition))) == definition_snapshot_of(
        definition
    )
    assert fingerprint_of(definition) != fingerprint_of(gathering(enough=None).definition)


def other_wait() -> Saga[Opened]:
    """Return a saga that waits for one of them."""
    made = saga("gathering")
    made.wait("votes", succeeds=Agreed, within=hours(24), on_timeout=COMPENSATE)
    return made


def other_votes() -> Saga[Opened]:
    """Return a saga that gathers something else."""
    made = saga("gathering")
    made.gather("votes", of=Agreed, into=Votes, by=lambda *_: Votes(), limit=2, within=hours(1), on_timeout=PROCEED)
    return made


@pytest.mark.parametrize(
    ("newer", "words"), [(other_wait, "is another kind of wait now"), (other_votes, "which it takes no longer")]
)
def test_an_instance_that_gathers_is_pinned_to_a_version_that_does(newer: Callable[[], Any], words: str) -> None:
    """What is on its way would be lost."""
    made = saga("gathering")
    made.gather("votes", of=Vote, into=Votes, by=count_vote, limit=2, within=hours(1), on_timeout=PROCEED)
    state = given(made, OPENED).when(Vote("ada")).state
    assert any(words in reason for reason in judge(made.definition, newer().definition, state).reasons)


# --- what cannot be said ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"limit": 0}, "has limit=0"),
        ({"limit": 101}, "has limit=101"),
        ({"of": Opened}, "means something else already"),
        ({"of": Agreed}, "means something else already"),
        ({"of": PollClosed}, "which also ends it"),
        ({"into": PollClosed}, "gathers into PollClosed, which also ends it"),
        ({"by": lambda votes: votes}, "must take 3 arguments"),
        ({"enough": lambda votes: True}, "must take 2 arguments"),
        ({"into": "votes"}, "is a str"),
        ({"needs": None}, "knows no needs="),
        ({"ended_by": None, "enough": None}, "nothing ends it but its time"),
    ],
)
def test_what_cannot_be_said_of_what_is_gathered(said: dict[str, Any], words: str) -> None:
    """Each is refused at import, with what was meant."""
    made: Any = saga("refused")
    made.wait("first", succeeds=Agreed, within=hours(1), on_timeout=COMPENSATE)
    given_: dict[str, Any] = {
        "of": Vote,
        "into": Votes,
        "by": count_vote,
        "limit": 5,
        "ended_by": PollClosed,
        "within": hours(24),
    }
    given_ |= {"on_timeout": COMPENSATE, **said}
    given_ = {name: value for name, value in given_.items() if value is not None or name == "needs"}
    with pytest.raises(DefinitionError, match=words):
        made.gather("votes", **given_)


@pytest.mark.parametrize("said", [{"succeeds": Vote}, {"succeeds": Agreed, "prolonged": Prolong(Vote, hours(1), 2)}])
def test_what_is_gathered_means_nothing_else_later(said: dict[str, Any]) -> None:
    """No other wait takes the same event, as an answer or as what prolongs it."""
    with pytest.raises(DefinitionError, match="waits for Vote, and so does votes"):
        gathering_last().wait("more", within=hours(1), on_timeout=COMPENSATE, **said)


def gathering_last() -> Saga[Opened]:
    """Return a saga of one wait that gathers."""
    made = saga("last")
    made.gather("votes", of=Vote, into=Votes, by=count_vote, limit=2, within=hours(1), on_timeout=PROCEED)
    return made
