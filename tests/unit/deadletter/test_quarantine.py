"""What the dead-letter topics say, and in which order they are emptied."""

from dataclasses import replace
from typing import Any

from towpath.deadletter.quarantine import (
    SETTLED_HEADER,
    Fate,
    Quarantine,
    Settlement,
    find,
    groups_of,
    sort_quarantine,
    with_fingerprint,
)
from towpath.deadletter.redrive_plan import drop_plan, next_steps, redrive_plan, redriven_record
from towpath.stream.broker.dead_letter import Announcement, DeadLetter, Mark, original, own_headers, with_original
from towpath.stream.broker.record import ConsumedRecord

HEAD = DeadLetter(
    application="app",
    kind="handler",
    cause="bad",
    error="ValueError",
    fingerprint="f",
    topic="in",
    partition=0,
    offset=1,
    timestamp_milliseconds=10,
    attempts=3,
    died_milliseconds=100,
    parked=True,
)


def follower(offset: int, died: int, *, topic: str = "in", behind: str = "in[0]@1", **changes: Any) -> DeadLetter:
    values = {"topic": topic, "offset": offset, "died_milliseconds": died, "behind": behind, "kind": "follower"}
    return replace(HEAD, **{**values, **changes})


def again(letter: DeadLetter, offset: int, died: int, **changes: Any) -> DeadLetter:
    """Return the letter of a redriven record that died another time."""
    first = {"first_offset": letter.offset, "first_died_milliseconds": letter.died_milliseconds}
    return replace(letter, **{"offset": offset, "died_milliseconds": died, **first, **changes})


def lie(*letters: DeadLetter | Settlement) -> list[ConsumedRecord]:
    """Return them as records of their dead-letter topics, in this order."""
    records = []
    for offset, letter in enumerate(letters):
        if isinstance(letter, Settlement):
            records.append(ConsumedRecord("in.dead", 0, offset, 0, b"k", None, letter.to_headers()))
        else:
            headers = (("dead", letter.to_json().encode()),)
            value = letter.position.encode()
            records.append(ConsumedRecord(f"{letter.topic}.dead", 0, offset, 0, b"k", value, headers))
    return records


def settled(letter: DeadLetter, fate: Fate = Fate.REDRIVEN) -> Settlement:
    return Settlement(letter.identity, fate, "kim", "", 500)


def order(quarantine: Quarantine) -> list[str]:
    (cohort,) = quarantine.cohorts.values()
    return [dead.letter.position for dead in cohort.waiting]


def test_what_debezium_repeats_counts_once_and_is_settled_once() -> None:
    """Wherever the repetition lies, before or after the settlement."""
    repeated = lie(HEAD, HEAD, settled(HEAD), HEAD)
    (dead,) = sort_quarantine(repeated).letters()
    assert (dead.place, dead.fate) == ("0:0", Fate.REDRIVEN)
    died_at_another_time = replace(HEAD, died_milliseconds=900)
    assert len(sort_quarantine([*repeated, *lie(died_at_another_time)]).letters()) == 2


def test_what_nobody_of_ours_wrote_is_set_aside() -> None:
    """A record without a letter, or with one that cannot be read, is counted and left alone."""
    strange = [
        ConsumedRecord("in.dead", 0, 7, 0, b"k", b"v"),
        ConsumedRecord("in.dead", 0, 8, 0, b"k", b"v", (("dead", b"[1]"),)),
        ConsumedRecord("in.dead", 0, 9, 0, b"k", b"v", ((SETTLED_HEADER, b"{}"),)),
    ]
    quarantine = sort_quarantine([*strange, *lie(HEAD)])
    assert [record.offset for record in quarantine.strangers] == [7, 8, 9]
    assert len(quarantine.letters()) == 1


def test_a_key_is_emptied_in_the_order_in_which_it_was_first_read() -> None:
    """A record that was unread at the first redrive comes after those that died again, though it lies before them."""
    two = follower(2, 110)
    late = follower(50, 200)
    head_again = again(HEAD, 60, 210)
    two_again = again(two, 61, 211, behind="in[0]@60")
    records = lie(HEAD, two, settled(HEAD), settled(two), late, head_again, two_again)
    quarantine = sort_quarantine(records)
    assert order(quarantine) == ["in[0]@60", "in[0]@61", "in[0]@50"]
    (request,) = redrive_plan(quarantine, quarantine.letters()[-1:])
    assert {step.behind for step in request.steps(quarantine)} == {"in[0]@60"}


def test_between_topics_the_time_of_death_orders_and_the_dead_one_comes_first() -> None:
    """Within one topic the offset does, whatever the clocks said."""
    records = lie(
        follower(9, 100, topic="also"), HEAD, follower(3, 90), follower(2, 120), follower(10, 115, topic="also")
    )
    assert order(sort_quarantine(records)) == ["in[0]@1", "also[0]@9", "also[0]@10", "in[0]@2", "in[0]@3"]


def test_nothing_is_sent_to_another_topic_before_its_predecessor_was_read() -> None:
    """What is dropped is not applied, and waits for nothing."""
    quarantine = sort_quarantine(lie(HEAD, follower(2, 110), follower(9, 120, topic="also"), follower(3, 130)))
    (request,) = redrive_plan(quarantine, quarantine.letters()[:1])
    steps = request.steps(quarantine)
    assert [len(next_steps(steps, unread)) for unread in ([], ["in"], ["also"])] == [2, 2, 0]
    (drops,) = drop_plan(quarantine, quarantine.letters()[:1], followers=True)
    assert len(next_steps(drops.steps(quarantine), ["also"])) == 4


def test_followers_wait_for_a_letter_that_has_not_arrived() -> None:
    """They are not redriven past it; they can be dropped, which releases what they hold."""
    quarantine = sort_quarantine(lie(follower(2, 110)))
    (dead,) = quarantine.letters()
    assert quarantine.cohort_of(dead).unseen == ("in[0]@1",)
    (request,) = redrive_plan(quarantine, [dead])
    assert request.steps(quarantine) == []
    (drops,) = drop_plan(quarantine, [dead], followers=False)
    (step,) = drops.steps(quarantine)
    sent = redriven_record(step)
    assert sent is not None
    assert Mark("app", dead.letter.identity, "in[0]@1", True, 2, 110, 10).to_header() in sent.headers


def test_followers_are_counted_with_what_they_follow() -> None:
    """Also where that was redriven since, and with a fingerprint of its own otherwise; newest last."""
    other = replace(HEAD, offset=7, died_milliseconds=50, fingerprint="g", parked=False)
    quarantine = sort_quarantine(lie(HEAD, follower(2, 110), follower(9, 300, topic="also"), settled(HEAD), other))
    groups = groups_of(quarantine, ["in.dead"])
    assert [(group.fingerprint, len(group.dead), len(group.parked)) for group in groups] == [("g", 1, 0), ("f", 0, 2)]
    assert [group.fate for group in groups_of(quarantine, ["in.dead"], settled=True)].count(Fate.REDRIVEN) == 1
    assert len(with_fingerprint(quarantine, "in.dead", "f")) == 2
    assert groups_of(quarantine, ["also.dead"]) == []
    assert find(quarantine, "in.dead", 0, 1) is not None
    assert find(quarantine, "in.dead", 0, 3) is None


def test_an_outbox_gives_back_what_its_columns_cannot_hold() -> None:
    """Own id, headers of any name, bytes that are no text, a missing key or value."""
    headers = (("id", b"x"), ("odd", b"\xff\x00"), ("none", None), ("redrive", b"old"))
    for key, value in ((b"\xffk", b"v"), (None, None), (b"", b"")):
        record = ConsumedRecord("in", 0, 1, 10, key, value, headers)
        letter = with_original(record, HEAD)
        carried = ConsumedRecord("in.dead", 3, 4, 99, b"mangled", value or b"", (("id", b"other"), ("type", b"")))
        assert original(carried, letter) == record._replace(headers=own_headers(record))


def test_a_key_waits_for_its_stand_in_whatever_the_clocks_say() -> None:
    """The stand-in came last, though the head died by a clock that ran ahead; what was before is not counted."""
    stand_in = replace(HEAD, kind="stand-in", offset=9, died_milliseconds=50)
    later = follower(10, 60, behind=stand_in.position)
    (cohort,) = sort_quarantine(lie(HEAD, follower(2, 110), stand_in, later)).cohorts.values()
    assert cohort.behind == stand_in.position
    assert cohort.stand_in is not None
    assert [dead.letter.offset for dead in cohort.uncounted] == [1, 2]


def test_a_stand_in_that_debezium_repeats_ends_one_announcement() -> None:
    """Another one that is announced is still to come; what announces nothing that can be read is a stranger."""
    stand_in = replace(HEAD, kind="stand-in", offset=9, died_milliseconds=50)
    announced = ConsumedRecord("in.dead", 0, 0, 0, b"k", None, Announcement("app", 0, "k", "kim", "", 5).to_headers())
    records = [announced, announced, *lie(stand_in, stand_in)]
    (cohort,) = sort_quarantine(records).cohorts.values()
    assert cohort.announced == 1
    strange = announced._replace(headers=(("stand-in", b"{}"),))
    assert sort_quarantine([strange]).strangers == (strange,)
