"""The one log of `towpath dev`: who says it, in a colour of their own, and what, in one line. Pure."""

import json
from collections.abc import Iterable
from zlib import crc32

from rich.text import Text

from towpath.client import InstanceStatus
from towpath.stack.supervisor.logs import START_MARK

COLOURS = ("cyan", "magenta", "green", "blue", "bright_cyan", "bright_magenta", "bright_green", "bright_blue")
_LEVELS = {"warning": "yellow", "error": "red", "critical": "bold red"}
_KNOWN = frozenset({"event", "level", "logger", "timestamp", "worker", "exception"})
_STATES = {"completed": "green", "compensated": "yellow", "compensating": "yellow", "stuck": "bold red"}


def colour_of(name: str) -> str:
    """Return the colour of a worker: the same in each session."""
    return COLOURS[crc32(name.encode()) % len(COLOURS)]


def line(name: str, width: int, text: str, style: str = "") -> Text:
    """Return one line that `name` says."""
    return Text.assemble((f"{name:<{width}}  ", colour_of(name)), (text, style))


def log_lines(name: str, width: int, said: str) -> Iterable[Text]:
    """Return a line of a worker's log as it is shown: its JSON in words, anything else as it is."""
    if said.startswith(START_MARK):
        return
    try:
        content = json.loads(said)
    except ValueError:
        content = None
    if not isinstance(content, dict) or "event" not in content:
        yield line(name, width, said, "dim")
        return
    of_faust = not str(content.get("logger")).startswith("towpath") or str(content["event"]).startswith("[^")
    if content.get("level") == "info" and of_faust:
        return  # how Faust's own services start and stop: towpath logs NAME has it
    facts = "  ".join(f"{key}={value}" for key, value in content.items() if key not in _KNOWN and value is not None)
    style = _LEVELS.get(str(content.get("level")), "")
    yield line(name, width, f"{content['event']}{f'  {facts}' if facts else ''}", style)
    for more in str(content.get("exception") or "").splitlines()[-12:]:
        yield line(name, width, f"  {more}", "red")


def saga_line(width: int, status: InstanceStatus) -> Text:
    """Return how an instance of a saga stands, in one line."""
    why = f": {status.reason}" if status.reason else ""
    waits = f", waits for {status.waiting_for}" if status.waiting_for else ""
    return line(status.saga, width, f"{status.key} {status.status}{why}{waits}", _STATES.get(status.status, ""))


def proof_line(width: int, said: str) -> Text:
    """Return a line of the checks: what is wrong in red, what is well dimmed."""
    wrong = said.startswith("! ")
    return line("check", width, said.removeprefix("! "), "red" if wrong else "dim green")
