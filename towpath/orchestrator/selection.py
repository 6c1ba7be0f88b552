"""Which instances a person means: by status, step, cause, age, version, key, or a list of ids. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from towpath.orchestrator.instance_status import KeptInstance
from towpath.orchestrator.requests import cells
from towpath.saga.state import NEED_A_PERSON


@dataclass(frozen=True, slots=True)
class Selection:
    """What an instance must be like; what is None or empty does not matter.

    `step` is the key of a step (or item's step) that is under way or needs a person; `cause` is a part of the cause's
    words; `older_than_seconds` counts from the last change; `key_pattern` is a shell pattern; `names` are ids or keys.
    """

    status: str | None = None
    step: str | None = None
    cause: str | None = None
    version: int | None = None
    older_than_seconds: float | None = None
    key_pattern: str | None = None
    names: frozenset[str] | None = None
    stuck: bool = False
    unfinished: bool = False

    @property
    def everything(self) -> bool:
        """Say whether nothing was asked for."""
        return self == Selection()

    def takes(self, instance: KeptInstance, now_milliseconds: int) -> bool:
        """Say whether `instance` is meant."""
        state = instance.state
        age_seconds = (now_milliseconds - instance.changed_milliseconds) / 1000
        return (
            (self.status is None or state.status.value == self.status)
            and (not self.stuck or instance.stuck)
            and (not self.unfinished or not state.ended)
            and (self.step is None or self._at_step(instance, self.step))
            and (self.cause is None or self.cause.lower() in str(state.cause or "").lower())
            and (self.version is None or state.version == self.version)
            and (self.older_than_seconds is None or age_seconds >= self.older_than_seconds)
            and (self.key_pattern is None or fnmatchcase(state.key, self.key_pattern))
            and (self.names is None or state.saga_id in self.names or state.key in self.names)
        )

    def of(
        self, instances: Iterable[KeptInstance], now_milliseconds: int, limit: int | None = None
    ) -> list[KeptInstance]:
        """Return those of `instances` that are meant, in their order, at most `limit`."""
        found = [instance for instance in instances if self.takes(instance, now_milliseconds)]
        return found if limit is None else found[:limit]

    def _at_step(self, instance: KeptInstance, step: str) -> bool:
        if any(words.partition(" ")[0] == step for words in instance.under_way):
            return True
        return any(name[0] == step and cell.status in NEED_A_PERSON for name, cell in cells(instance.state))
