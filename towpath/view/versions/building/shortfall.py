"""What a version's topics no longer have. Pure.

The one rule: a version whose rows would lack what has expired is not built in silence.
"""

from collections.abc import Mapping
from typing import Any

from towpath.errors import RefusedError
from towpath.stream.broker.record import TopicPartition
from towpath.view.versions.log import Bounds
from towpath.view.versions.standing import Vector
from towpath.view.view import View


def expired(view: View[Any], bounds: Bounds, vector: Vector) -> dict[TopicPartition, int]:
    """Return the partitions that the version has not begun and that have lost their beginning, with what is left of it.

    `bounds` are those of the view's topics. Nothing is missing of a partition that it has begun: should records expire
    unread later, that is held and said.
    """
    return {
        place: begin for place, begin in bounds.begins.items() if begin > 0 and place not in vector and not view.forgets
    }


def require_whole(view: View[Any], missing: Mapping[TopicPartition, int]) -> None:
    """Raise RefusedError where records that the version needs have expired."""
    if not missing:
        return
    first = min(missing)
    others = f" and {len(missing) - 1} more partitions" if len(missing) > 1 else ""
    build = f"towpath views build {view.name} --version {view.version}"
    raise RefusedError(
        f"version {view.version} of view {view.name} would lack records: {first} begins at {missing[first]}{others}, "
        "and what came before has expired",
        kept="every version that is there; nothing was read",
        next_step=f"{build} --from snapshot --reason REASON takes the rows of the version before; or --from outbox, "
        "what the services' outboxes still hold; or --from topic, which accepts the loss",
    )
