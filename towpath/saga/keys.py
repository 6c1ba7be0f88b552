"""Identifiers and jitter, derived: the same inputs give the same values on every machine, for ever.

Ids follow RFC 9562, version 5 (SHA-1 of a namespace and a name), computed here without building `uuid.UUID` objects,
since one is derived for each command (1 us instead of 4).
"""

import hashlib

# uuid5(NAMESPACE_DNS, "saga.towpath"): the namespace of all saga ids. It must never change.
_SAGA_NAMESPACE = bytes.fromhex("637cec9e8f8b516e9a5626e2074da1b1")


def _uuid5(namespace: bytes, name: str) -> str:
    digest = bytearray(hashlib.sha1(namespace + name.encode(), usedforsecurity=False).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    text = digest.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def saga_id_of(saga: str, start_id: str) -> str:
    """Return the id of the instance of `saga` that the input `start_id` starts."""
    return _uuid5(_SAGA_NAMESPACE, f"{saga}:{start_id}")


def idempotency_key_of(saga_id: str, step: str, item: str, direction: str, round_: int) -> str:
    """Return the key under which a participant records the outcome: the same for every attempt of a round."""
    return _uuid5(bytes.fromhex(saga_id.replace("-", "")), f"{step}:{item}:{direction}:{round_}")


def start_id_of_child(parent_saga_id: str, step: str, item: str = "") -> str:
    """Return the id of a sub-saga's start, given by its parent, step and item: the same however often it is sent."""
    return idempotency_key_of(parent_saga_id, step, item, "do", 1)


def command_id_of(idempotency_key: str, attempt: int) -> str:
    """Return the id of the message that carries one attempt of a command."""
    return _uuid5(bytes.fromhex(idempotency_key.replace("-", "")), str(attempt))


def jitter_milliseconds(identity: str, ceiling_milliseconds: int) -> int:
    """Return a number from 0 to the ceiling, both included, spread evenly over identities (full jitter).

    Full jitter is what AWS measured as the best of its kind ("Exponential Backoff And Jitter", 2015); drawn from a hash
    instead of dice, a decision can be replayed.
    """
    drawn = int.from_bytes(hashlib.blake2b(identity.encode(), digest_size=8).digest(), "big")
    return drawn * (ceiling_milliseconds + 1) >> 64
