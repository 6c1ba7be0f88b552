"""How work is cut, who is at fault, and what a dead letter says."""

import random

import pytest

from towpath.errors import PeerError, ProgrammerError, WorldError
from towpath.stream.broker.dead_letter import dead_headers, describe, fingerprint, read_dead_letter
from towpath.stream.broker.port import Groups
from towpath.stream.broker.record import ConsumedRecord, TopicPartition
from towpath.stream.engine.failures import (
    RETRY_SECONDS_MAX,
    AgentFailed,
    Backlog,
    Blame,
    DeadShare,
    TooManyDead,
    Work,
    after_failure,
    backoff_seconds,
    blame,
    retry_seconds,
)


def record(offset: int, partition: int = 0) -> ConsumedRecord:
    return ConsumedRecord("in", partition, offset, 0, b"k", str(offset).encode())


def groups(*counts: int) -> Groups:
    return {
        TopicPartition("in", number): [record(offset, number) for offset in range(count)]
        for number, count in enumerate(counts)
    }


def order(works: list[Work]) -> dict[int, list[int]]:
    """Return the offsets of each partition in the order in which the pieces would run."""
    found: dict[int, list[int]] = {}
    for work in works:
        for partition, records in work.groups.items():
            found.setdefault(partition.partition, []).extend(each.offset for each in records)
    return found


def test_cutting_never_changes_the_order_of_a_partition() -> None:
    """Random work with a random culprit, known or not: pieces run in order, and the culprit ends up alone."""
    seed = random.randrange(10**9)
    print("seed", seed)  # noqa: T201 - to run it again
    chance = random.Random(seed)
    for _ in range(200):
        whole = Work(groups(*(chance.randrange(1, 9) for _ in range(chance.randrange(1, 4)))))
        partition = chance.choice(list(whole.groups))
        culprit = chance.choice(whole.groups[partition])
        expected = order([whole])
        queue, ran = [whole], []
        while queue:
            work = queue.pop(0)
            hit = culprit in work.groups.get(partition, [])
            if not hit or work.verdict is not None:
                ran.append(work)
                continue
            known = culprit if chance.random() < 0.5 else None
            queue = [*after_failure(work, AgentFailed(ValueError(), known), Blame.HANDLER, attempts_max=3), *queue]
        assert order(ran) == expected
        (dead,) = [work for work in ran if work.verdict is not None]
        assert dead.only == culprit
        assert dead.attempts == 3


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (WorldError("away"), Blame.WORLD),
        (ConnectionResetError(), Blame.WORLD),
        (PeerError("bad"), Blame.PEER),
        (ProgrammerError("bug"), Blame.HANDLER),
        (KeyError("bug"), Blame.HANDLER),
    ],
)
def test_the_error_says_who_is_at_fault(error: Exception, expected: Blame) -> None:
    """What does not say so is the handler's."""
    assert blame(error) is expected


def test_a_project_may_declare_errors_of_its_world() -> None:
    """A library's own time-out, say."""
    assert blame(KeyError(), (LookupError,)) is Blame.WORLD


def test_a_backlog_grows_its_last_whole_piece_only() -> None:
    """What comes later never joins a piece that was cut or has failed."""
    backlog = Backlog(records_max=10)
    backlog.add(groups(3))
    backlog.add(groups(2))
    assert len(backlog) == 1
    work = backlog.take()
    assert work is not None
    work.cut = True
    backlog.put_back([work])
    backlog.add(groups(1))
    assert len(backlog) == 2
    backlog.drop(frozenset({TopicPartition("in", 0)}))
    assert len(backlog) == 0


def test_the_share_of_the_dead_is_that_of_the_last_hundred() -> None:
    """Old deaths leave the window with what has gone well since."""
    share = DeadShare(limit=0.1)
    share.died(10)
    with pytest.raises(TooManyDead, match="11 of the last 100"):
        share.check(1)
    share.applied(95)
    share.check(5)


def test_runs_of_a_record_lie_further_and_further_apart() -> None:
    """By the time that a person set, up to a limit; not at all where it is 0."""
    assert [retry_seconds(attempts, 0.1) for attempts in (1, 2, 3)] == pytest.approx([0.1, 0.4, 1.6])
    assert (retry_seconds(50, 0.1), retry_seconds(2, 0.0)) == (RETRY_SECONDS_MAX, 0.0)


def test_waiting_doubles_up_to_a_limit() -> None:
    """From a tenth of a second to ten seconds."""
    assert [backoff_seconds(n) for n in (1, 2, 3, 7, 8, 100)] == [0.1, 0.2, 0.4, 6.4, 10.0, 10.0]


def fail(value: int) -> None:
    raise ValueError(value)


def caught(value: int) -> ValueError:
    try:
        fail(value)
    except ValueError as error:
        return error
    raise AssertionError


def test_a_fingerprint_tells_kinds_of_failures_not_records() -> None:
    """Equal for the same error at the same place; another for another error or place."""
    assert fingerprint(caught(1)) == fingerprint(caught(2))
    assert fingerprint(caught(1)) != fingerprint(ValueError(1))
    assert fingerprint(ValueError()) != fingerprint(KeyError())


def test_a_dead_letter_says_whence_and_why_and_leaves_the_record_alone() -> None:
    """Its own headers stay; an earlier death and a redrive mark are replaced."""
    old = record(7)._replace(headers=(("type", b"T"), ("dead", b"{}"), ("redrive", b"{}")))
    letter = describe(old, PeerError("x" * 600), application="app", kind="peer", attempts=1, died_milliseconds=5)
    headers = dict(dead_headers(old, letter))
    assert headers["type"] == b"T"
    assert "redrive" not in headers
    read = read_dead_letter((headers["dead"] or b"").decode())
    assert read == letter
    assert (read.topic, read.partition, read.offset, len(read.cause)) == ("in", 0, 7, 500)
    with pytest.raises(ValueError, match="no DeadLetter"):
        read_dead_letter("{}")
