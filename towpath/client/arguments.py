"""What a caller may pass by mistake, told before anything is written or waited for. Pure.

The one rule: an argument of the wrong kind is refused here, by its name; it must not travel as text that nobody knows.
"""

import math
from typing import Any
from uuid import UUID

from towpath.client.saga import NOTHING_WRITTEN
from towpath.errors import ConfigurationError
from towpath.saga.inputs import Action


def require_key(key: Any) -> str:
    """Return a business key. Raises ConfigurationError for one that is no text, or empty: no saga reads its record."""
    if isinstance(key, str) and key:
        return require_text(key, "a business key")
    given = "an empty one" if key == "" else f"a {type(key).__name__}"
    raise _wrong(f"a business key is a text, not {given}", "pass it as str: the key that the saga is known by")


def require_text(value: Any, name: str) -> str:
    """Return a text that PostgreSQL and Kafka can hold. Raises ConfigurationError for any other value."""
    if not isinstance(value, str):
        raise _wrong(f"{name} is a text, not a {type(value).__name__}", f"pass {name} as str")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _wrong(f"{name} has half a character, which no UTF-8 can hold", "pass the text as it was read") from error
    if "\0" in value:
        raise _wrong(f"{name} has a zero byte, which PostgreSQL cannot hold", "pass the text without it")
    return value


def require_id(value: Any, name: str) -> UUID:
    """Return an id that was passed as `name`, in the one form that all know. Raises ConfigurationError."""
    if isinstance(value, UUID):
        return value
    try:
        return UUID(value)
    except (ValueError, TypeError, AttributeError) as error:
        what = repr(value) if isinstance(value, str) else f"a {type(value).__name__}"
        raise _wrong(f"{name} is a UUID, not {what}", _id_of(value) or f"pass {name} as uuid.UUID") from error


def require_instance_id(value: Any) -> str:
    """Return the id of an instance as it is kept, however it is written. Raises ConfigurationError for what is none."""
    if isinstance(value, (str, UUID)):
        return str(require_id(value, "saga_id"))
    raise _wrong(f"an instance is found by its id, not by a {type(value).__name__}", _id_of(value) or "pass saga_id")


def instance_id_of(value: Any) -> str | None:
    """Return the id of an instance, None for a text that is none: it may be what a visitor typed, and none has it.

    Raises ConfigurationError for any other value.
    """
    try:
        return require_instance_id(value)
    except ConfigurationError:
        if isinstance(value, str):
            return None
        raise


def require_named(instance: Any) -> None:
    """Raise ConfigurationError for what names no instance."""
    if not all(isinstance(getattr(instance, name, None), str) for name in ("saga", "saga_id", "key")):
        raise _wrong(
            f"a request is about an instance, and a {type(instance).__name__} is none",
            "pass what start, standing or find returned: a Started or an InstanceStatus",
        )


def require_action(action: Any) -> Action:
    """Return an action, also where its name was given. Raises ConfigurationError."""
    try:
        return Action(action)
    except ValueError as error:
        names = ", ".join(f"Action.{one.name}" for one in Action)
        raise _wrong(f"a saga cannot be asked to {action!r}", f"ask for one of {names}") from error


def require_seconds(timeout_seconds: Any) -> float:
    """Return for how long to wait. Raises ConfigurationError for what is no number of seconds."""
    number = isinstance(timeout_seconds, (int, float)) and not isinstance(timeout_seconds, bool)
    if number and not math.isnan(timeout_seconds):
        return float(timeout_seconds)
    raise _wrong(
        f"timeout_seconds is a number of seconds, not {timeout_seconds!r}", "say for how long to wait, 30 for instance"
    )


def _id_of(value: Any) -> str | None:
    return f"pass its saga_id: the {type(value).__name__} has it" if hasattr(value, "saga_id") else None


def _wrong(cause: str, next_step: str) -> ConfigurationError:
    return ConfigurationError(cause, kept=NOTHING_WRITTEN, next_step=next_step)
