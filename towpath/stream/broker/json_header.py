"""What a header of ours says as JSON. Pure.

The one rule: whoever may write to a topic may write anything under our names, so each part's type is checked before
any of it is used.
"""

import json
from dataclasses import MISSING, fields
from enum import StrEnum
from functools import cache
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

NUMBER_MAX = 2**63 - 1
"""Offsets and times are Kafka's, of 64 bits."""


def content_of(text: str | bytes, kind: type) -> dict[str, Any]:
    """Return the fields of `kind`, a dataclass, that `text` has: every one that it needs, of its type, and no other.

    What is a tuple there is a list here, and a name of an enumeration any text. Raises ValueError for all else.
    """
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"no {kind.__name__}: nested too deep") from error
    types, needed = _types_of(kind)
    if not isinstance(content, dict) or not needed <= content.keys() <= types.keys():
        raise ValueError(f"no {kind.__name__}: it has other fields")
    for name, value in content.items():
        # Not isinstance: a boolean would be a number.
        if type(value) not in types[name] or (type(value) is int and not -NUMBER_MAX <= value <= NUMBER_MAX):
            raise ValueError(f"no {kind.__name__}: its {name} is not of its type")
    return content


@cache
def _types_of(kind: type) -> tuple[dict[str, frozenset[type]], frozenset[str]]:
    """Return the types that each field has in JSON, and which fields have no default."""
    types = {
        name: frozenset(map(_in_json, get_args(hint) if isinstance(hint, UnionType) else (hint,)))
        for name, hint in get_type_hints(kind).items()
    }
    needed = frozenset(
        field.name for field in fields(kind) if field.default is MISSING and field.default_factory is MISSING
    )
    return types, needed


def _in_json(hint: Any) -> type:
    if get_origin(hint) is tuple:
        return list
    return str if issubclass(hint, StrEnum) else hint
