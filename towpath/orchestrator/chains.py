"""Chains of instances: a wish to cancel that is read after one has completed and before the next has begun. Pure.

The one rule: it is kept for that next instance, by its id, and feeds no other start. Only an instance that could be
cancelled until it ended leaves the wish to the next: past a pivot it is refused, and what was refused once must not be
applied later, when it comes again.
"""

from collections.abc import Mapping

from towpath.orchestrator.instances import Instances
from towpath.orchestrator.record_context import RecordContext
from towpath.saga.decision_builder import next_key_of
from towpath.saga.definition import Activity, Definition, Kind
from towpath.saga.keys import saga_id_of, start_id_of_child
from towpath.stream.broker.position import PartitionHeld


class Chains:
    """Knows which instance of a saga follows another."""

    def __init__(self, saga: str, definitions: Mapping[int, Definition], instances: Instances) -> None:
        self._saga = saga
        self._instances = instances
        self._links = {
            version: definition
            for version, definition in definitions.items()
            if definition.steps[-1].activity is Activity.NEXT and definition.kind is Kind.COMPENSATABLE
        }
        self._cancels = frozenset(signal for definition in self._links.values() for signal in definition.cancels)

    def next_of(self, context: RecordContext, key: str, signal: object) -> str | None:
        """Return the id of the instance that `signal`, a wish to cancel, only just precedes; None where there is none.

        It is on its way here: all of the key have ended, and one of them has started it. Raises BuilderError.
        """
        ids = context.instances_of(key) if type(signal) in self._cancels else []
        if not all(self._instances.has_ended(context, saga_id) for saga_id in ids):
            return None
        return next((found for saga_id in reversed(ids) if (found := self._after(context, saga_id, key, signal))), None)

    def _after(self, context: RecordContext, saga_id: str, key: str, signal: object) -> str | None:
        """Return the id of the instance that another of this key has started, if that has not begun."""
        state = self._instances.load(context, saga_id)
        link = None if state is None else self._links.get(state.version)
        if state is None or link is None or type(signal) not in link.cancels:
            return None
        following = saga_id_of(self._saga, start_id_of_child(saga_id, link.steps[-1].key))
        if self._instances.load(context, following) is not None:
            return None
        try:
            definition, state = self._instances.under_definition(state, self._links)
        except PartitionHeld:
            return None  # its version was edited: what it started is no longer known
        return following if next_key_of(definition, state) == key else None
