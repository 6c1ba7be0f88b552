"""The verdict on what arrived."""

from collections import Counter
from uuid import UUID

from towpath.capture.completeness import compare

ONE, TWO, THREE = (UUID(int=n) for n in (1, 2, 3))


def test_all_that_was_written_and_carried_is_complete() -> None:
    """One record for each message."""
    (audit,) = compare({"t": [ONE, TWO]}, {"t": Counter([ONE, TWO])})
    assert audit.complete
    assert (audit.written, audit.carried, audit.repeated) == (2, 2, 0)


def test_what_did_not_arrive_is_named() -> None:
    """By the ids with which it can be re-emitted."""
    (audit,) = compare({"t": [THREE, ONE, TWO]}, {"t": Counter([TWO])})
    assert not audit.complete
    assert audit.missing == (ONE, THREE)


def test_a_message_in_another_topic_than_its_own_has_not_arrived() -> None:
    """Topics are compared one by one."""
    audits = compare({"a": [ONE], "b": []}, {"b": Counter([ONE])})
    assert [audit.complete for audit in audits] == [False, True]


def test_repeats_are_counted_and_are_no_loss() -> None:
    """Debezium carries at least once."""
    (audit,) = compare({"t": [ONE, TWO]}, {"t": Counter([ONE, ONE, ONE, TWO])})
    assert audit.complete
    assert audit.repeated == 2


def test_what_others_wrote_or_the_outbox_no_longer_holds_is_no_finding() -> None:
    """A topic of replies has several writers, and keeps longer than outboxes do."""
    (audit,) = compare({"t": [ONE]}, {"t": Counter([ONE, TWO])})
    assert audit.complete
    assert (audit.carried, audit.repeated) == (1, 0)
