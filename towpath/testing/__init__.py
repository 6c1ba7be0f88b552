"""Testing a project, from one saga to all of it, without Kafka, Debezium or a clock.

`given` talks to one saga; `ServiceAlone`, and `suite` of `Case` (the conformance kit), ask one service on a scratch
database; `InMemoryProject` runs sagas, services and views together. `plugin.py` makes pytest fixtures of them, and is
registered with pytest by itself. `docs/testing.md` is their page.
"""

from typing import TYPE_CHECKING, Any

from towpath.saga.testing import Conversation, World, given

if TYPE_CHECKING:
    from towpath.testing.asking import Asking
    from towpath.testing.conformance import Case, suite
    from towpath.testing.instance import Instance
    from towpath.testing.parts import ProjectParts
    from towpath.testing.postgres import ScratchServer
    from towpath.testing.project import InMemoryProject
    from towpath.testing.service import ServiceAlone

__all__ = [
    "Asking",
    "Case",
    "Conversation",
    "InMemoryProject",
    "Instance",
    "ProjectParts",
    "ScratchServer",
    "ServiceAlone",
    "World",
    "given",
    "suite",
]

_HOMES = {
    "Asking": "asking",
    "Case": "conformance",
    "suite": "conformance",
    "Instance": "instance",
    "ProjectParts": "parts",
    "ScratchServer": "postgres",
    "InMemoryProject": "project",
    "ServiceAlone": "service",
}


def __getattr__(name: str) -> Any:
    """Import what needs psycopg or Faust only when it is asked for: a conversation needs neither."""
    from importlib import import_module

    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
