"""What an application may wait for, and how it is recognised in the view of instances. Pure.

The one rule: a wait is a query that is asked again whenever the view says that something changed, so what came before
the wait began is found as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from towpath.client.messages import Sent
from towpath.client.saga import InstanceStatus, NotAnswered, NotEnded
from towpath.errors import TowpathError
from towpath.orchestrator.requests import Answer

Found = TypeVar("Found")
Found_co = TypeVar("Found_co", covariant=True)

LOOK_SECONDS = 5.0
"""Longest trust in a notification: a view that is being rebuilt, or a lost connection's successor, tells nothing."""


@dataclass(frozen=True, slots=True)
class Which:
    """Which instances: the one called `saga_id`, or, where that is None, all of `saga` for a business key."""

    saga_id: str | None
    saga: str = ""
    key: str = ""

    def ids(self, standings: Sequence[InstanceStatus]) -> set[str]:
        """Return the ids of those that are known; `standings` are how they were found."""
        return {one.saga_id for one in standings} if self.saga_id is None else {self.saga_id}


class Wanted(Protocol, Generic[Found_co]):
    """What is waited for."""

    @property
    def which(self) -> Which:
        """Return the instances that tell of it."""
        ...

    @property
    def timeout_seconds(self) -> float:
        """Return for how long it is waited for."""
        ...

    def found(self, standings: Sequence[InstanceStatus]) -> Found_co | None:
        """Return what was waited for, None while it has not come."""
        ...

    def too_late(self, standings: Sequence[InstanceStatus]) -> TowpathError:
        """Return the error for whoever has waited long enough."""
        ...


@dataclass(frozen=True, slots=True)
class Ending:
    """The ending of an instance, or the halt at which it needs a person."""

    saga_id: str
    timeout_seconds: float

    @property
    def which(self) -> Which:
        """Return the instance."""
        return Which(self.saga_id)

    def found(self, standings: Sequence[InstanceStatus]) -> InstanceStatus | None:
        """Return how it has ended."""
        return next((one for one in standings if one.ended or one.stuck), None)

    def too_late(self, standings: Sequence[InstanceStatus]) -> TowpathError:
        """Return NotEnded."""
        return NotEnded(self.saga_id, self.timeout_seconds, next(iter(standings), None))


@dataclass(frozen=True, slots=True)
class AnswerTo:
    """What became of a signal or a request."""

    sent: Sent
    timeout_seconds: float

    @property
    def which(self) -> Which:
        """Return the instance that was asked, or those that may take the signal."""
        return Which(self.sent.saga_id, self.sent.saga, self.sent.key)

    def found(self, standings: Sequence[InstanceStatus]) -> Answer | None:
        """Return the answer; of several instances that were given a signal, the one that took it.

        That one of them has refused it is the answer only where no other may take it yet: the view may have the one's
        entry already, and the other's with its next batch.
        """
        answers = self._answers(standings)
        taken = next((answer for _, answer in answers if answer.refusal is None), None)
        if taken is not None or not answers:
            return taken
        answered = {one.saga_id for one, _ in answers}
        refused_at = max(answer.history_offset for _, answer in answers)
        # An instance of which a later entry is known has passed the signal, or began after it. By offsets: times are
        # of several clocks, and what was written first need not have been read first.
        open_ = [one for one in standings if not one.ended and one.saga_id not in answered]
        return None if any(one.history_offset < refused_at for one in open_) else answers[0][1]

    def too_late(self, standings: Sequence[InstanceStatus]) -> TowpathError:
        """Return NotAnswered, with what was refused so far."""
        refusals = [answer.refusal for _, answer in self._answers(standings) if answer.refusal is not None]
        sent = self.sent
        return NotAnswered(sent.saga, sent.key, str(sent.id), self.timeout_seconds, len(standings), refusals)

    def _answers(self, standings: Sequence[InstanceStatus]) -> list[tuple[InstanceStatus, Answer]]:
        id_ = str(self.sent.id)
        return [(one, answer) for one in standings for answer in one.answers if answer.request_id == id_]
