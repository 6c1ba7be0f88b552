"""Which commands are dead letters now, so that nobody gives them up while a person looks at them. Pure.

The one rule: what lies in the dead-letter topics alone says it. A command that died waits until it is redriven or
dropped; one that was redriven is given a little time to be answered.
"""

from collections import Counter
from collections.abc import Callable

from towpath.deadletter.quarantine import SETTLED_HEADER, Fate, read_settlement
from towpath.stream.broker.dead_letter import DEAD_HEADER, original, read_dead_letter
from towpath.stream.broker.record import ConsumedRecord

REDRIVEN_MILLISECONDS = 60_000
"""How long a redriven command is still held: longer than a handler takes, as its attempt's own time is over already."""
REDRIVEN_MAX = 10_000


class DeadCommands:
    """Follows records of dead-letter topics. `subject_of` names what waits for a command: a timer's key, or None."""

    def __init__(self, subject_of: Callable[[ConsumedRecord], bytes | None]) -> None:
        self._subject_of = subject_of
        self._waiting: dict[str, bytes] = {}
        self._held: Counter[bytes] = Counter()
        self._redriven: dict[bytes, int] = {}

    def met(self, record: ConsumedRecord) -> None:
        """Take the next record of a dead-letter topic; what is neither a dead letter nor settles one is passed over."""
        try:
            # First this: a dead record may have had any header of its own; ours is the last one called `dead`.
            if (text := record.header(DEAD_HEADER)) is not None:
                letter = read_dead_letter(text)
                self._died(letter.identity, self._subject_of(original(record, letter)))
            elif (settled := record.header(SETTLED_HEADER)) is not None:
                settlement = read_settlement(settled)
                self._settle(settlement.of, settlement.fate, settlement.at_milliseconds)
        except ValueError:
            return

    def holds(self, subject: bytes, now_milliseconds: int) -> bool:
        """Say whether a command that `subject` waits for is dead, or was redriven a moment ago."""
        if subject in self._held:
            return True
        redriven = self._redriven.get(subject)
        return redriven is not None and now_milliseconds < redriven + REDRIVEN_MILLISECONDS

    def _died(self, identity: str, subject: bytes | None) -> None:
        if subject is not None and identity not in self._waiting:
            self._waiting[identity] = subject
            self._held[subject] += 1

    def _settle(self, identity: str, fate: Fate, at_milliseconds: int) -> None:
        subject = self._waiting.pop(identity, None)
        if subject is None:
            return
        self._held[subject] -= 1
        if not self._held[subject]:
            del self._held[subject]
        if fate is Fate.REDRIVEN:
            self._redriven[subject] = at_milliseconds
            while len(self._redriven) > REDRIVEN_MAX:
                del self._redriven[next(iter(self._redriven))]
