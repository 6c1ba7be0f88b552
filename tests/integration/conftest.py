"""What the integration tests share: the session's stack, by the name of its type."""

from tests.stack_fixture import RunningStack

__all__ = ["RunningStack"]
