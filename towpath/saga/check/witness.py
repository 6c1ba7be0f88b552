"""The tests that a check writes: one file for each violation, ready to run, which fails until it is fixed."""

import pprint
import re
import textwrap
from collections.abc import Sequence
from typing import Any

from towpath.saga.check.properties import SENTENCES, Breach
from towpath.saga.check.sampling import SampledBreach
from towpath.saga.testing.plain import to_plain

_HEAD = '''"""{sentence}.

Written by `towpath saga check`, which found it broken:
{words}.
The test fails until that is fixed; keep it, so that it stays so.
"""

'''


def path_test(where: str, breach: Breach, path: Sequence[str]) -> str:
    """Return a test that walks a path again. `where` is `module:attribute`; without it there is no test."""
    if not where:
        return ""
    sentences = "".join(f"    {_quoted(sentence)},\n" for sentence in path)
    call = f"assert_path_mended(saga, {_quoted(breach.rule.value)}, PATH)"
    return _file(breach, [where], "assert_path_mended", f"PATH = (\n{sentences})", call)


def call_test(where: str, found: SampledBreach) -> str:
    """Return a test that calls a function again on the data that showed the breach."""
    breach = found.breach
    try:
        arguments = [_plain(argument) for argument in found.arguments]
        cause = None
        if found.cause is not None:
            known = found.cause
            cause = {"kind": known.kind.value, "step": known.step, "reply": _plain(known.reply)}
            cause |= {"actor": known.actor, "reason": known.reason}
    except TypeError:  # data that has no plain form: the whole check is run again instead
        return static_test([where], breach)
    if not where or not arguments:
        return static_test([where], breach)
    call = (
        f"assert_call_mended(\n        saga,\n        {_quoted(breach.rule.value)},\n"
        f"        step={_quoted(breach.subject)},\n        role={_quoted(found.role.value)},\n"
        f"        arguments=ARGUMENTS,\n        item={found.item!r},\n        cause={cause!r},\n    )"
    )
    data = f"ARGUMENTS = {pprint.pformat(arguments, width=100, sort_dicts=False)}"
    return _file(breach, [where], "assert_call_mended", data, call)


def static_test(wheres: Sequence[str], breach: Breach) -> str:
    """Return a test that checks sagas whole, side by side; the first is the one that must be fixed."""
    if not all(wheres):
        return ""
    names = ", ".join(_name(number) for number in range(len(wheres)))
    call = f"assert_mended({names}, rule={_quoted(breach.rule.value)}, step={_quoted(breach.subject)})"
    return _file(breach, wheres, "assert_mended", "", call)


def _plain(argument: object) -> Any:
    if argument is None:
        return None
    if isinstance(argument, tuple) and not hasattr(argument, "_fields"):
        return [_plain(each) for each in argument]
    return {"class": type(argument).__name__, "value": to_plain(argument)}


def _head(breach: Breach) -> str:
    sentence = SENTENCES[breach.rule]
    words = f"{breach.subject} {breach.words}".strip().replace("\\", "/").replace('"""', "'''").rstrip(".")
    wrapped = textwrap.fill(words, 110)
    return _HEAD.format(sentence=sentence[0].upper() + sentence[1:], words=wrapped)


def _file(breach: Breach, wheres: Sequence[str], helper: str, data: str, call: str) -> str:
    imports = []
    for number, where in enumerate(wheres):
        module, _, attribute = where.partition(":")
        renamed = "" if attribute == _name(number) else f" as {_name(number)}"
        imports.append(f"from {module} import {attribute}{renamed}\n")
    imports.append(f"from towpath.saga.check.replay import {helper}\n")
    name = re.sub(r"\W+", "_", f"{breach.rule.value}_{breach.subject}".lower()).strip("_")
    sentence = SENTENCES[breach.rule]
    function = f'def test_{name}() -> None:\n    """{sentence[0].upper() + sentence[1:]}."""\n    {call}\n'
    return _head(breach) + "".join(imports) + (f"\n{data}\n" if data else "") + f"\n\n{function}"


def _name(number: int) -> str:
    return "saga" if number == 0 else f"saga_{number + 1}"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
