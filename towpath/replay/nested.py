"""The project's records inside the engine's: a state's results, a history's replies. Pure.

The one rule: whoever asks whether a record can be read, or carries it to another registry, means those as well.
"""

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

from towpath.orchestrator.buffered_signals import EARLY
from towpath.orchestrator.instances import INSTANCE
from towpath.orchestrator.records import Message

HELD_AS_RECORDS = (INSTANCE, EARLY.encode())
"""How the keys of a state begin whose values are records; the rest are marks, ids and clocks in forms of their own."""


def kept_otherwise(topic: str, key: bytes | None) -> bool:
    """Return whether a value is no record at all: of a saga's state, all but instances and early signals."""
    return topic.endswith(".state") and not (key or b"").startswith(HELD_AS_RECORDS)


def payloads_in(value: Any) -> Iterator[bytes]:
    """Yield what each message inside a decoded record carries, in the registry's wire format."""
    if isinstance(value, Message):
        yield value.payload
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from payloads_in(one)
    elif isinstance(value, dict):
        yield from payloads_in(list(value.values()))
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from payloads_in(getattr(value, field.name))


def with_payloads(value: Any, change: Callable[[bytes], bytes]) -> Any:
    """Return `value` with each payload changed; the same object where none is another than before."""
    if isinstance(value, Message):
        payload = change(value.payload)
        return value if payload == value.payload else replace(value, payload=payload)
    if isinstance(value, (list, tuple)):
        made = [with_payloads(one, change) for one in value]
        return value if all(map(_same, made, value)) else type(value)(made)
    if isinstance(value, dict):
        plain = {name: with_payloads(one, change) for name, one in value.items()}
        return value if all(plain[name] is value[name] for name in value) else plain
    if is_dataclass(value) and not isinstance(value, type):
        before = {field.name: getattr(value, field.name) for field in fields(value)}
        changed = {name: made for name, one in before.items() if (made := with_payloads(one, change)) is not one}
        return replace(value, **changed) if changed else value
    return value


def _same(one: object, other: object) -> bool:
    return one is other
