"""Which keys wait behind a dead record, and what of them may pass. Pure.

The one rule: redriven equals never failed. While anything of a key lies in quarantine, its later records follow it
there; what is redriven passes only in its turn, and the key goes on when nothing of it is held any more.

| The record                   | its key is not parked | its key waits for what the mark names | it waits for another |
|------------------------------|-----------------------|---------------------------------------|----------------------|
| has no mark                  | is applied            | follows                               | follows              |
| ... and is there already     | -                     | is passed over                        | is passed over       |
| ... and precedes what is     | -                     | is applied: an offset was set back    | the same             |
| is marked for another        | is passed over        | is passed over                        | is passed over       |
| is redriven                  | is applied            | is applied, and held no more          | follows              |
| is dropped (no value)        | is passed over        | is passed over, and held no more      | the same             |
| stands in (no value)         | is waited for, held 1 | the same; what was held is forgotten  | the same             |

The last column is what happens behind a redriven record that died again: the key waits for its new position, so
what was sent after it goes back into quarantine instead of overtaking it. The count of what is held makes the order
in which marks and new records meet harmless: records that were still unread when the redrive was sent have been
counted by the time its last record passes, and keep the key parked.

That count never comes to nothing where dead letters have outlived their topic's retention. A record that stands in for
them begins it anew: what is still there is then sent with no turn, follows, and so is counted; after that the stand-in
is dropped like any other (see `Redrive.release`).
"""

from dataclasses import dataclass, replace
from enum import Enum

from towpath.stream.broker.dead_letter import Mark
from towpath.stream.state.partition_state import RESERVED, State

_PARKED = RESERVED + b"p"


class Admission(Enum):
    """What is done with a record before any agent sees it."""

    APPLY = "apply"
    FOLLOW = "follow"
    PASS_OVER = "pass over"  # noqa: S105 - no password


@dataclass(frozen=True, slots=True)
class Parked:
    """A key that waits for the dead record at the position `behind`, while `held` records of it are in quarantine."""

    behind: str
    held: int
    spans: tuple[tuple[str, int, int, int], ...] = ()
    """Topic, first and last offset of what was settled since it waits, and the latest time of such a record.

    All of the key between the offsets went into quarantine, or came from there. A later record at one of these is new:
    the log has lost its tail, or was made anew, and a person let it go on.
    """

    def span(self, topic: str) -> tuple[int, int, int] | None:
        """Return the offsets of `topic` between which all of the key is settled, and the latest time there."""
        return next(((first, last, newest) for name, first, last, newest in self.spans if name == topic), None)

    def spanning(self, topic: str, offset: int, milliseconds: int) -> "Parked":
        """Return it with one more record settled at this place."""
        first, last, newest = self.span(topic) or (offset, offset, milliseconds)
        # A later one is new, and so is all behind it: if it lies before the end, the log was cut there.
        last = offset if milliseconds > newest else max(last, offset)
        others = tuple(span for span in self.spans if span[0] != topic)
        return replace(self, spans=(*others, (topic, min(first, offset), last, max(newest, milliseconds))))

    def settled(self, topic: str, offset: int, milliseconds: int) -> bool | None:
        """Return whether a record at this place was settled since the key waits, None if it came before that."""
        span = self.span(topic)
        if span is None or offset > span[1] or milliseconds > span[2]:
            return False
        return True if offset >= span[0] else None

    def to_text(self) -> str:
        """Return its form in a store: words, since a topic's name has no space."""
        return f"{self.held} {self.behind} {self.spans_text}"

    @property
    def spans_text(self) -> str:
        """Return the spans as words."""
        return " ".join(":".join(map(str, span)) for span in self.spans)

    def released(self) -> "Parked | None":
        """Return it with one record less in quarantine; None lets the key go on."""
        return replace(self, held=self.held - 1) if self.held > 1 else None


def parked_of(text: str) -> Parked:
    """Return what `Parked.to_text` gave."""
    held, behind, *words = text.split(" ")
    spans = (word.split(":") for word in words if word)
    return Parked(
        behind,
        int(held),
        tuple((topic, int(first), int(last), int(*newest or (2**63,))) for topic, first, last, *newest in spans),
    )


def admit(parked: Parked | None, topic: str, offset: int, milliseconds: int) -> Admission:
    """Return what is done with a record that has no mark.

    One that is read again, after an offset was reset, is what it was: what went into quarantine is there, and what came
    before that was applied, so dedup may say so.
    """
    if parked is None:
        return Admission.APPLY
    settled = parked.settled(topic, offset, milliseconds)
    if settled is None:
        return Admission.APPLY
    return Admission.PASS_OVER if settled else Admission.FOLLOW


def admit_redriven(mark: Mark, parked: Parked | None, application: str) -> tuple[Admission, Parked | None]:
    """Return what `application` does with a record from quarantine, and how its key is parked after."""
    if mark.application != application:
        return Admission.PASS_OVER, parked
    passed = Admission.PASS_OVER if mark.drop else Admission.APPLY
    if parked is None:
        return passed, None
    # What was not parked when it died was not counted either.
    after = parked if mark.behind is None else parked.released()
    if mark.drop or mark.behind == parked.behind:
        return passed, after
    # A follower is counted again when it is dead-lettered, so the key must stay parked in between.
    return Admission.FOLLOW, replace(parked, held=parked.held - (mark.behind is not None))


def park(parked: Parked | None, position: str, *, follows: bool, redriven: bool) -> Parked:
    """Return how a key is parked once its record at `position` is dead.

    It waits for the first that died; where a redriven one dies again, for that, so that nothing sent with it passes.
    """
    if parked is None:
        return Parked(position, 1)
    moved = redriven and not follows
    return replace(parked, behind=position if moved else parked.behind, held=parked.held + 1)


class ParkedKeys:
    """The parked keys of one partition, kept in its state."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._parked: dict[bytes, Parked] = {}
        self.reload()

    def reload(self) -> None:
        """Read them from the state: at assignment, and after an abort."""
        self._parked = {}
        for key, value in self._state.scan_reserved(_PARKED):
            self._parked[key[len(_PARKED) :]] = parked_of(value.decode())

    def __len__(self) -> int:
        return len(self._parked)

    def get(self, key: bytes) -> Parked | None:
        """Return how `key` is parked, None if it goes on."""
        return self._parked.get(key)

    def put(self, key: bytes, parked: Parked | None) -> None:
        """Park `key`, or let it go on, in the open unit of work."""
        if parked is None:
            self._state.put_reserved(_PARKED + key, None)
            self._parked.pop(key, None)
        else:
            self._state.put_reserved(_PARKED + key, parked.to_text().encode())
            self._parked[key] = parked
