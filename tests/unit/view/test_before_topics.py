"""Of what outboxes hold, a version begins with what is older than its topics alone."""

from itertools import count

import pytest

from towpath.orchestrator.envelope import headers_of
from towpath.stream.broker.record import ConsumedRecord
from towpath.view.versions.building.before_topics import InTopics, before_topics

FIRST = ord("a")


def records(text: str) -> list[ConsumedRecord]:
    """Return a record for each letter, written in the order of the alphabet."""
    offsets = count()
    return [ConsumedRecord("t", 0, next(offsets), ord(c) - FIRST, b"k", b"", headers_of(id=c)) for c in text]


@pytest.mark.parametrize(
    ("topic", "outbox", "begins_with"),
    [
        ("", "abc", "abc"),
        ("cd", "abcd", "ab"),
        ("abcd", "cd", ""),
        ("cd", "abcdef", "ab"),
        ("ab", "ef", ""),
        ("ef", "abc", "abc"),
        ("cb", "acb", "a"),
        ("bd", "abcd", "ac"),
        ("bx", "acb", "ac"),
        ("c", "cb", ""),
        ("cd", "acdb", "a"),
    ],
    ids=[
        "the topic has nothing",
        "the topic has lost its beginning",
        "the outbox has lost its beginning",
        "the last are not captured yet",
        "none of the outbox's is captured yet",
        "another wrote into the topic since",
        "commits in another order than they were written",
        "the topic is compacted",
        "one that was written later committed before what the topic begins with",
        "one that was written before what the topic has committed behind it, and is not captured yet",
        "one that was written before what the topic begins with committed last, and is not captured yet",
    ],
)
def test_what_is_older_than_the_topic_comes_before_it_and_nothing_else(
    topic: str, outbox: str, begins_with: str
) -> None:
    """What the topic has comes from it, in its order; what comes behind that does, too."""
    found = before_topics(records(outbox), InTopics(records(topic), 0))
    assert "".join(record.header("id") or "" for record in found) == begins_with


def test_what_a_topic_has_in_the_partition_of_before_it_grew_comes_from_it_alone() -> None:
    """The outbox tells the partition by how many the topic has now."""
    in_topic = [record._replace(partition=0) for record in records("cd")]
    in_outbox = [record._replace(partition=5) for record in records("abcd")]
    found = before_topics(in_outbox, InTopics(in_topic, 0))
    assert "".join(record.header("id") or "" for record in found) == "ab"
