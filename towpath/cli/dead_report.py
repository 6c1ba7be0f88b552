"""How the verbs of `dead` show what they found and did."""

import shlex
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from towpath.cli import output
from towpath.errors import TowpathError
from towpath.settings import Settings

if TYPE_CHECKING:
    from towpath.contract.catalogue import Catalogue
    from towpath.contract.codec import Codec
    from towpath.deadletter.quarantine import Cohort, Dead, Group, Quarantine
    from towpath.deadletter.redrive import Outcome
    from towpath.deadletter.redrive_plan import LetterStep

HEX_BYTES_MAX = 2048
"""Bytes of a value that is shown as it is; `--json` has all of it."""

HINTS = {
    "peer": "who wrote it broke the contract: ask the owner of the topic; redrive once this side can read it, or drop",
    "handler": "fix the handler that raised, deploy, then redrive",
    "follower": "nothing is wrong with it: it waits for the record that it follows",
    "stand-in": "a release has begun and not ended: it stands in for dead letters that are no longer there",
    "BeyondDedupHorizon": "look whether its effect is there: redriving applies it, dropping does not",
}


def moment(milliseconds: int) -> str:
    """Return a time as people and machines read it, in UTC; one that no calendar has, as whoever wrote it said it."""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return f"{milliseconds} ms"


def text_of(value: bytes | None) -> str | None:
    """Return a key, or a header's value, as people read and type it."""
    return None if value is None else value.decode("utf-8", "backslashreplace")


def show_groups(groups: "Sequence[Group]", *, as_json: bool, settled: bool) -> None:
    """Print dead letters by cause."""
    rows = [_group(each) for each in groups]
    if as_json:
        output.emit_json(rows)
        return
    if not rows:
        output.note("no dead letters" if settled else "no dead letters wait (--all also lists those that are settled)")
        return
    columns = ("topic", "application", "state", "kind", "dead", "parked", "first", "last", "example", "fingerprint")
    shown = [name for name in columns if name != "state" or settled]
    output.show_rows([{name: row[name] for name in shown} for row in rows])
    # One cause may be of several topics, applications and states.
    for row in {row["fingerprint"]: row for row in reversed(rows)}.values():
        cause = f"{row['error']}: {row['cause']}" if row["error"] else row["cause"]
        output.styled_result(f"[bold]{row['fingerprint']}[/] {escape(cause)}")
    output.note("next: towpath dead show TOPIC EXAMPLE")


def _group(group: "Group") -> dict[str, Any]:
    letter = group.example.letter
    return {
        "topic": letter.topic,
        "application": group.application,
        "state": group.fate.value,
        "kind": group.kind,
        "error": group.cause.letter.error,
        "cause": group.cause.letter.cause,
        "fingerprint": group.fingerprint,
        "dead": len(group.dead),
        "parked": len(group.parked),
        "first": moment(group.first_milliseconds),
        "last": moment(group.last_milliseconds),
        "example": group.example.place,
    }


def show_letters(
    settings: Settings, catalogue: "Catalogue", quarantine: "Quarantine", letters: "Sequence[Dead]", *, as_json: bool
) -> None:
    """Print dead letters whole."""
    codec = _codec(settings, catalogue, sorted({dead.letter.topic for dead in letters}))
    rows = [_letter(quarantine, dead, codec) for dead in letters]
    if as_json:
        output.emit_json(rows)
        return
    for row in rows:
        _print_letter(row)


def _codec(settings: Settings, catalogue: "Catalogue", topics: Sequence[str]) -> "Codec | None":
    from towpath.contract.registry import load_codec

    try:
        return load_codec(settings, catalogue, topics)
    except TowpathError as error:
        output.note(f"values are shown in hex: {error.cause}")
        return None


def _letter(quarantine: "Quarantine", dead: "Dead", codec: "Codec | None") -> dict[str, Any]:
    from towpath.stream.broker.dead_letter import original

    letter, cohort = dead.letter, quarantine.cohort_of(dead)
    record = original(dead.record, letter)
    before = quarantine.cause_of(dead)
    settlement = dead.settlement
    return {
        "topic": letter.topic,
        "position": dead.place,
        "state": dead.fate.value,
        "settled": None
        if settlement is None
        else {"by": settlement.actor, "at": moment(settlement.at_milliseconds), "reason": settlement.reason},
        "application": letter.application,
        "kind": letter.kind,
        "error": letter.error,
        "cause": letter.cause,
        "fingerprint": letter.fingerprint,
        "attempts": letter.attempts,
        "died_at": moment(letter.died_milliseconds),
        "origin": letter.position,
        "written_at": moment(letter.timestamp_milliseconds),
        "key": text_of(record.key),
        "headers": {name: text_of(value) for name, value in record.headers},
        "value": _value(record.value, codec),
        "follows": None if before is dead else {"topic": before.letter.topic, "position": before.place},
        "parked": [
            {"topic": each.letter.topic, "position": each.place, "origin": each.letter.position}
            for each in cohort.waiting
            if letter.parked and each is not dead and each.letter.behind is not None
        ],
        "next": _next(quarantine, dead),
    }


def _value(value: bytes | None, codec: "Codec | None") -> dict[str, Any]:
    """Return a value as its schema reads it, else in hex with the reason."""
    if value is None:
        return {"hex": None}
    if codec is None:
        return {"hex": value.hex()}
    try:
        record = codec.decode(value)
    except TowpathError as error:
        return {"hex": value.hex(), "undecodable": error.cause}
    return {"type": record.SCHEMA_NAME, "content": codec.to_json(record)}


def _next(quarantine: "Quarantine", dead: "Dead") -> list[str]:
    letter, before = dead.letter, quarantine.cause_of(dead)
    if dead.settlement is not None:
        return []
    hint = HINTS.get(letter.error) or HINTS.get(letter.kind)
    chosen = before if before is not dead and before.settlement is None else dead
    cohort = quarantine.cohort_of(dead)
    if dead.is_gone:
        return [
            f'towpath dead drop {letter.topic} {dead.place} --reason "its record is no longer at {letter.position}"'
        ]
    if cohort.unseen or cohort.announced or cohort.stand_in is not None:
        return [*([hint] if hint else []), release_command(cohort, dead)]
    return [
        *([hint] if hint else []),
        f"towpath dead redrive {chosen.letter.topic} {chosen.place}",
        f'towpath dead drop {letter.topic} {dead.place} --reason "..."',
    ]


def release_command(cohort: "Cohort", dead: "Dead") -> str:
    """Return what lets the key of a dead letter go on though what it waits for is no longer there."""
    letter, key = dead.letter, shlex.quote(text_of(cohort.key[2]) or "")
    return f'towpath dead release {letter.topic} {key} --application {letter.application} --reason "..."'


def _print_letter(row: dict[str, Any]) -> None:
    def line(name: str, text: Any) -> None:
        output.styled_result(f"[bold]{name:<12}[/]{escape(str(text))}")

    line("dead letter", f"{row['topic']} {row['position']}, {row['state']}")
    if row["settled"]:
        line(row["state"], f"by {row['settled']['by']} at {row['settled']['at']} {row['settled']['reason']}".rstrip())
    line("cause", f"{row['error']}: {row['cause']}" if row["error"] else row["cause"])
    line("died", f"{row['died_at']} in {row['application']}, {row['kind']}, after {row['attempts']} attempts")
    line("came from", f"{row['origin']}, written {row['written_at']}")
    line("fingerprint", row["fingerprint"])
    line("key", row["key"])
    for name, value in row["headers"].items():
        line("header", f"{name}: {value}")
    value = row["value"]
    if "content" in value:
        line("value", value["type"])
        output.results.print_json(data=value["content"], default=str)
    elif value["hex"] is None:
        line("value", "none")
    else:
        if "undecodable" in value:
            line("value", value["undecodable"])
        cut = value["hex"][: 2 * HEX_BYTES_MAX]
        line("hex", cut + (f" and {(len(value['hex']) - len(cut)) // 2} bytes more" if cut != value["hex"] else ""))
    if row["follows"]:
        line("follows", f"{row['follows']['topic']} {row['follows']['position']}")
    line("parked", ", ".join(f"{each['topic']} {each['position']}" for each in row["parked"]) or "nothing behind it")
    for text in row["next"]:
        line("next", text)
    output.results.print()


def show_steps(steps: "Sequence[LetterStep]", *, as_json: bool) -> None:
    """Print what would be sent, in order."""
    rows = [
        {
            "topic": step.topic,
            "position": step.dead.place,
            "application": step.dead.letter.application,
            "origin": step.dead.letter.position,
            "would_be": step.fate.value,
        }
        for step in steps
    ]
    if as_json:
        output.emit_json(rows)
        return
    if not rows:
        output.note("nothing is left to be sent")
        return
    output.show_rows(rows)
    output.note(f"{output.counted(len(rows), 'dead letter')}; nothing was sent")


def show_outcome(outcome: "Outcome", *, as_json: bool) -> None:
    """Print what was done."""
    if as_json:
        output.emit_json(
            {
                "redriven": [_name(dead) for dead in outcome.redriven],
                "dropped": [_name(dead) for dead in outcome.dropped],
                "died_again": [_name(dead) for dead in outcome.died_again],
                "left": [_name(dead) for dead in outcome.left],
                "unread_by": list(outcome.unread),
            }
        )
        return
    if not (outcome.redriven or outcome.dropped):
        output.note("nothing was left to be sent: it was redriven or dropped before")
        return
    output.results.print(
        f"{len(outcome.redriven)} redriven, {len(outcome.dropped)} dropped"
        + ("" if outcome.unread else ", and read by their workers"),
        highlight=False,
    )


def note_unanswered(dropped: "Iterable[Dead]") -> None:
    """Say of a saga's commands that are given up what becomes of them: the saga is not given up with them."""
    from towpath.stream.broker.dead_letter import original

    asked: dict[tuple[str, str], str] = {}
    for record in (original(dead.record, dead.letter) for dead in dropped):
        saga, saga_id = record.header("saga"), record.header("saga_id")
        if saga and saga_id and record.header("reply_to"):
            asked.setdefault((saga, saga_id), (record.header("type") or "").rpartition(".")[2])
    if not asked:
        return
    ((saga, saga_id), command), *others = asked.items()
    also = f" (as are those of {output.counted(len(others), 'other saga')})" if others else ""
    output.note(
        f"{command} is a command of {saga} {saga_id}: dropped, it counts as unanswered there, and is tried again as "
        f"its retry policy says{also}; to give the saga up: towpath saga cancel {saga} {saga_id} --reason '...' "
        "(or compensate)"
    )


def _name(dead: "Dead") -> dict[str, str]:
    return {
        "topic": dead.letter.topic,
        "position": dead.place,
        "application": dead.letter.application,
        "origin": dead.letter.position,
    }
