"""Towpath: business transactions across services on PostgreSQL, Debezium, Kafka and Faust.

The rooms below are in the order a message travels: outbox, capture, contract, stream, saga, orchestrator,
participant, client, view. Each room's pure file lies beside its I/O twin, whose name tells the I/O.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from towpath.facade import Project

__all__ = ["Project"]


def __getattr__(name: str) -> Any:
    """Import the project's door when it is asked for: a worker or a command needs a part of it only."""
    if name == "Project":
        from towpath.facade import Project

        return Project
    raise AttributeError(f"module 'towpath' has no attribute {name!r}")
