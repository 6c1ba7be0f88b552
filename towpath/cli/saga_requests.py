"""Verbs by which a person acts on sagas: retry, skip, resume, cancel, compensate, and signal.

Each tries the request on the instance as it stands (the machine is a pure function), shows what it would do, and sends
it. Asked again about the same situation it is the same request: a run that was interrupted is simply run again.
"""

import getpass
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from towpath.cli import output
from towpath.cli.saga_definitions import find_definition
from towpath.clock import SystemClock
from towpath.errors import ConfigurationError, NotFoundError, PartlyDoneError, RefusedError
from towpath.settings import Settings, load_settings

if TYPE_CHECKING:
    from towpath.contract.codec import Codec
    from towpath.orchestrator.asking import Answer
    from towpath.orchestrator.instance_status import Instance
    from towpath.orchestrator.requests import Preview, Request
    from towpath.orchestrator.selection import Selection
    from towpath.saga.inputs import Action

WAIT_SECONDS = 30.0
SHOWN_MAX = 20
"""Requests that are shown one by one; JSON has all."""

Name = Annotated[str, typer.Argument(help="The saga.")]
Which = Annotated[
    str | None,
    typer.Argument(metavar="ID", help="The instance's id, or its business key; without one, those that match."),
]
Step = Annotated[str, typer.Option("--step", help="The step; needed where several need a person.")]
Item = Annotated[str, typer.Option("--item", help="The item of an `each`.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the history.")]
Actor = Annotated[str | None, typer.Option("--actor", help="Who asks; by default the user of this machine.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what the machine would decide, and send nothing.")]
Wait = Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for the outcome; 0 does not wait.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask before acting on several.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Status = Annotated[str | None, typer.Option("--status", help="Those of this status.")]
Cause = Annotated[str | None, typer.Option("--cause", help="Those whose cause has these words.")]
Version = Annotated[int | None, typer.Option("--version", help="Those of this version.")]
OlderThan = Annotated[float | None, typer.Option("--older-than", min=0, help="Unchanged for so many seconds.")]
KeyPattern = Annotated[str | None, typer.Option("--key", help="Those whose key matches this pattern (* and ?).")]
Ids = Annotated[Path | None, typer.Option("--file", help="Those whose ids or keys stand in this file, one a line.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="At most so many, the oldest first.")]
Rate = Annotated[float | None, typer.Option("--rate", min=0.1, help="At most so many a second.")]
Reply = Annotated[str | None, typer.Option("--reply", help="The class of the reply that the step is to take.")]
ReplyValue = Annotated[str | None, typer.Option("--value", help="The reply as JSON, held against its contract.")]
Like = Annotated[bool, typer.Option("--like", help="Fill what --value leaves out from the contract's example.")]


def register(saga_app: typer.Typer) -> None:
    """Add the verbs to `saga`."""
    for verb in (retry, resume, cancel, compensate, skip, signal):
        saga_app.command()(verb)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the options of a verb come to."""

    action: str
    selection: "Selection"
    which: str | None
    step: str
    item: str
    actor: str
    reason: str
    limit: int | None
    rate: float | None
    wait_seconds: float
    dry_run: bool
    yes: bool
    as_json: bool


def retry(
    name: Name,
    which: Which = None,
    step: Step = "",
    item: Item = "",
    reason: Reason = "",
    actor: Actor = None,
    status: Status = None,
    cause: Cause = None,
    version: Version = None,
    older_than: OlderThan = None,
    key: KeyPattern = None,
    file: Ids = None,
    limit: Limit = None,
    rate: Rate = None,
    wait: Wait = WAIT_SECONDS,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Try a step again that is stuck, or whose undo is; also one that pauses before its next attempt."""
    selection = _selection(status, step, cause, version, older_than, key, file, which)
    asked = _Asked(
        "retry", selection, which, step, item, actor or _user(), reason, limit, rate, wait, dry_run, yes, as_json
    )
    _act(load_settings(), name, asked)


def resume(
    name: Name,
    which: Which = None,
    reason: Reason = "",
    actor: Actor = None,
    step: Annotated[str, typer.Option("--step", help="Those that are stuck at this step.")] = "",
    status: Status = None,
    cause: Cause = None,
    version: Version = None,
    older_than: OlderThan = None,
    key: KeyPattern = None,
    file: Ids = None,
    limit: Limit = None,
    rate: Rate = None,
    wait: Wait = WAIT_SECONDS,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Try every step again that is stuck: what kept them from going on is fixed."""
    selection = _selection(status, step, cause, version, older_than, key, file, which)
    asked = _Asked(
        "resume", selection, which, "", "", actor or _user(), reason, limit, rate, wait, dry_run, yes, as_json
    )
    _act(load_settings(), name, asked)


def cancel(
    name: Name,
    which: Which = None,
    reason: Reason = "",
    actor: Actor = None,
    step: Annotated[str, typer.Option("--step", help="Those that are at this step.")] = "",
    status: Status = None,
    version: Version = None,
    older_than: OlderThan = None,
    key: KeyPattern = None,
    file: Ids = None,
    limit: Limit = None,
    rate: Rate = None,
    wait: Wait = WAIT_SECONDS,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Undo what was done, because the business no longer wants it. Refused past the point of no return."""
    selection = _selection(status, step, None, version, older_than, key, file, which)
    asked = _Asked(
        "cancel", selection, which, "", "", actor or _user(), reason, limit, rate, wait, dry_run, yes, as_json
    )
    _act(load_settings(), name, asked)


def compensate(
    name: Name,
    which: Which = None,
    reason: Reason = "",
    actor: Actor = None,
    step: Annotated[str, typer.Option("--step", help="Those that are at this step.")] = "",
    status: Status = None,
    version: Version = None,
    older_than: OlderThan = None,
    key: KeyPattern = None,
    file: Ids = None,
    limit: Limit = None,
    rate: Rate = None,
    wait: Wait = WAIT_SECONDS,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Give up and undo what was done. Refused past the point of no return."""
    selection = _selection(status, step, None, version, older_than, key, file, which)
    asked = _Asked(
        "compensate", selection, which, "", "", actor or _user(), reason, limit, rate, wait, dry_run, yes, as_json
    )
    _act(load_settings(), name, asked)


def skip(
    name: Name,
    which: Which = None,
    step: Step = "",
    item: Item = "",
    reply: Reply = None,
    value: ReplyValue = None,
    like: Like = False,
    reason: Reason = "",
    actor: Actor = None,
    cause: Cause = None,
    version: Version = None,
    older_than: OlderThan = None,
    key: KeyPattern = None,
    file: Ids = None,
    limit: Limit = None,
    rate: Rate = None,
    wait: Wait = WAIT_SECONDS,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Take a reply as the answer of a step that is stuck, because a person knows what became of it.

    For an undo that is stuck or that the participant refused no reply is needed: it counts as undone.
    """
    selection = _selection(None, step, cause, version, older_than, key, file, which)
    asked = _Asked(
        "skip", selection, which, step, item, actor or _user(), reason, limit, rate, wait, dry_run, yes, as_json
    )
    settings = load_settings()
    given = None if reply is None else _Given(reply, value, like)
    if reply is None and (value is not None or like):
        raise ConfigurationError("--value and --like need --reply", next_step="name the reply's class: --reply NAME")
    _act(settings, name, asked, given)


def signal(
    name: Name,
    key: Annotated[str, typer.Argument(help="The business key of the instance that waits.")],
    type_: Annotated[str, typer.Argument(metavar="TYPE", help="The record that the wait takes, OrderApproved say.")],
    json_value: Annotated[str, typer.Option("--value", help="The record as JSON, held against its contract.")] = "{}",
    like: Annotated[bool, typer.Option("--like", help="Fill what is left out from the contract's example.")] = False,
    signal_id: Annotated[str | None, typer.Option("--id", help="Its id; the same id is taken once.")] = None,
    wait: Wait = WAIT_SECONDS,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Give a wait its answer: an event, or what a person decided."""
    from uuid import NAMESPACE_URL, uuid5

    from towpath.orchestrator import envelope
    from towpath.orchestrator.asking import Answers, send

    room = _Room(load_settings(), name)
    topic = room.catalogue.topic(envelope.topic_of(name, envelope.SIGNALS))
    record = room.record(type_, json_value, like=like, among=topic.values)
    id_ = signal_id or str(uuid5(NAMESPACE_URL, f"towpath:signal:{name}:{key}:{record!r}"))
    if dry_run:
        shown = {"topic": topic.name, "key": key, "type": record.SCHEMA_NAME, "id": id_}
        output.emit_json(shown) if as_json else output.show_rows([shown])
        return
    headers = envelope.headers_of(id=id_, type=record.SCHEMA_NAME)
    answers = Answers(room.broker, room.codec, name, SystemClock())
    try:
        message = (topic.name, key.encode(), room.codec.encode(record), headers)
        send(room.broker, [message], transactional_id=room.transactional_id(_user()), sleep=time.sleep)
        found = list(answers.wait([id_], seconds=wait)) if wait > 0 else []
    finally:
        answers.close()
    shown = {
        "signal": type_,
        "key": key,
        "id": id_,
        "outcome": ("sent" if not found else "applied" if found[0].refusal is None else "refused"),
        "reason": found[0].refusal if found else None,
        "status": found[0].status if found else None,
    }
    output.emit_json(shown) if as_json else output.show_rows([shown])
    if found and found[0].refusal is not None:
        raise RefusedError(
            f"the signal was refused: {found[0].refusal}",
            kept="the saga, as it was",
            next_step=f"towpath saga show {name} {key}",
        )
    if not found and wait > 0:
        raise PartlyDoneError(
            "it is sent and not answered yet",
            kept="the signal, in its topic; one that comes before its saga is kept for it",
            next_step=f"towpath saga show {name} {key}, and towpath status to see whether the saga's worker runs",
        )


# --- how it is done ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Given:
    """The reply that a person gives."""

    type: str
    value: str | None
    like: bool


class _Room:
    """The catalogue, the codec and the broker of one saga."""

    def __init__(self, settings: Settings, saga: str) -> None:
        from towpath.contract.catalogue import Catalogue
        from towpath.contract.registry import load_codec
        from towpath.stream.broker.kafka import KafkaBroker

        self.settings = settings
        self.saga = saga
        self.catalogue: Catalogue = Catalogue.load(settings)
        self.codec: Codec = load_codec(settings, self.catalogue, self.catalogue.topics_of(saga))
        self.broker = KafkaBroker(settings.kafka, settings.stream)

    def transactional_id(self, actor: str) -> str:
        """Return the id of a person's producer: of two runs of one person the later one ends the earlier."""
        return f"{self.settings.project.name}-operator-{actor}"

    def instances(self) -> Sequence["Instance"]:
        """Return all instances, with the business's records open."""
        from towpath.orchestrator import envelope
        from towpath.orchestrator.instance_status import instances_in
        from towpath.orchestrator.mapping import Messages
        from towpath.stream.broker.kafka import read_records

        topic = self.catalogue.topic(envelope.topic_of(self.saga, envelope.STATE)).name
        return tuple(instances_in(read_records(self.settings, [topic]), self.codec, Messages(self.codec)))

    def record(self, name: str, text: str | None, *, like: bool, among: Iterable[str]) -> Any:
        """Return the record that a person wrote. Raises NotFoundError, ConfigurationError, ContractError."""
        fitting = [full for full in among if name in (full, full.rpartition(".")[2])]
        if len(fitting) != 1:
            raise NotFoundError(
                f"{name} is none of the records that fit here",
                next_step=f"one of: {', '.join(sorted(full.rpartition('.')[2] for full in among))}",
            )
        try:
            value = json.loads(text or "{}")
        except ValueError as error:
            raise ConfigurationError(f"this is no JSON: {error}", next_step="write an object: '{...}'") from error
        if like and isinstance(value, dict):
            value = {**self._example(fitting[0]), **value}
        return self.codec.from_json(fitting[0], value)

    def _example(self, full: str) -> dict[str, Any]:
        from towpath.contract.examples import load_examples
        from towpath.contract.files import load_contracts, schema_sets

        contracts = load_contracts(schema_sets(self.settings))
        folder = self.settings.root / self.settings.project.schemas / "examples"
        for example in load_examples(contracts, folder):
            if example.record == full and example.expect is None and example.version is None:
                return dict(example.content)
        raise NotFoundError(f"{full} has no good example", next_step="leave --like out, and write the whole record")


def _selection(
    status: str | None,
    step: str,
    cause: str | None,
    version: int | None,
    older_than: float | None,
    key: str | None,
    file: Path | None,
    which: str | None,
) -> "Selection":
    from towpath.orchestrator.selection import Selection

    names = None
    if file is not None:
        try:
            names = frozenset(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
        except OSError as error:
            raise ConfigurationError(f"{file} cannot be read: {error}", next_step="name another file") from error
    if which is not None:
        return Selection(names=frozenset({which}))
    return Selection(
        status=status,
        step=step or None,
        cause=cause,
        version=version,
        older_than_seconds=older_than,
        key_pattern=key,
        names=names,
    )


def _act(settings: Settings, name: str, asked: _Asked, given: _Given | None = None) -> None:
    """Find the instances, try the request on each, and, unless it is a dry run, send it and say what became of it."""
    from towpath.orchestrator.asking import ask
    from towpath.orchestrator.requests import preview

    if not asked.reason and not asked.dry_run:
        raise ConfigurationError("a request names its reason", next_step="say why with --reason; the history keeps it")
    room = _Room(settings, name)
    clock = SystemClock()
    now = int(clock.now().timestamp() * 1000)
    chosen = _choose(room.instances(), name, asked, now)
    requests, previews = [], {}
    for instance in chosen:
        definition = find_definition(settings, name, instance.state.version)
        request = _request(room, definition, instance, asked, given, alone=asked.which is not None)
        if request is not None:
            requests.append(request)
            previews[request.id] = preview(
                definition, instance.state, replace(request, reason=asked.reason or "-"), now
            )
    if not requests:
        raise NotFoundError(
            f"no instance of {name} can be asked to {asked.action}", next_step=f"towpath saga list {name} --stuck"
        )
    if asked.dry_run:
        _show_previews(requests, previews, as_json=asked.as_json)
        return
    if asked.which is None:
        output.ask(f"{asked.action} {len(requests)} instances of {name}?", yes=asked.yes)

    def progress(sent: int) -> None:
        if asked.which is None:
            output.note(f"{sent} of {len(requests)} sent")

    answers = ask(
        room.broker,
        room.codec,
        clock,
        requests,
        transactional_id=room.transactional_id(asked.actor),
        wait_seconds=asked.wait_seconds,
        rate_per_second=asked.rate,
        sleep=time.sleep,
        progress=progress,
    )
    _show_outcomes(name, requests, answers, waited=asked.wait_seconds > 0, as_json=asked.as_json)


def _choose(instances: Sequence["Instance"], name: str, asked: _Asked, now: int) -> list["Instance"]:
    if asked.which is None and asked.selection.everything and asked.action in ("cancel", "compensate"):
        raise ConfigurationError(
            f"{asked.action} without an id would take every instance of {name}",
            next_step="name one, or choose with --status, --step, --key, --older-than, --version or --file",
        )
    found = asked.selection.of(instances, now)
    if asked.which is None:
        if asked.action in ("retry", "resume", "skip"):
            found = [instance for instance in found if instance.stuck]
        else:
            found = [instance for instance in found if not instance.state.ended]
        return found if asked.limit is None else found[: asked.limit]
    if not found:
        raise NotFoundError(
            f"saga {name} has no instance {asked.which}",
            next_step=f"towpath saga list {name}; it may be forgotten already",
        )
    if len(found) > 1:
        ids = ", ".join(instance.state.saga_id for instance in found)
        raise RefusedError(
            f"key {asked.which} has {len(found)} instances: {ids}",
            kept="all of them, as they were",
            next_step="name one by its id",
        )
    return found


def _request(
    room: _Room, definition: Any, instance: "Instance", asked: _Asked, given: _Given | None, *, alone: bool
) -> "Request | None":
    """Return the request for one instance; None for one of many that it cannot be about."""
    from towpath.orchestrator.requests import request_of

    action: Action = _action(asked.action)
    try:
        request = request_of(
            instance.state, action, actor=asked.actor, reason=asked.reason, step=asked.step, item=asked.item
        )
    except RefusedError as error:
        if alone:
            raise
        output.note(f"left out: {error.cause}")
        return None
    if given is None:
        return request
    position = definition.index.get(request.step)
    among = [] if position is None else _outcome_names(definition.steps[position])
    reply = room.record(given.type, given.value, like=given.like, among=among)
    return request_of(
        instance.state,
        action,
        actor=asked.actor,
        reason=asked.reason,
        step=request.step,
        item=request.item,
        reply=reply,
    )


def _outcome_names(step: Any) -> list[str]:
    from towpath.orchestrator.mapping import wire_name

    undo = () if step.undo is None else step.undo.outcomes
    return [wire_name(kind) for kind in (*step.outcomes, *undo)]


def _action(name: str) -> "Action":
    from towpath.saga.inputs import Action

    return Action(name)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


# --- how it is shown --------------------------------------------------------------------------------------------------


def _show_previews(requests: Sequence["Request"], previews: dict[str, "Preview"], *, as_json: bool) -> None:
    if as_json:
        output.emit_json([{**_plain(request), **asdict(previews[request.id])} for request in requests])
        return
    for request in requests[:SHOWN_MAX]:
        seen = previews[request.id]
        about = f"{request.action.value} {_place(request)}of {request.saga_id} (key {request.key})"
        if seen.refusal is not None:
            output.results.print(escape(f"{about}: would be refused: {seen.refusal}"), highlight=False, soft_wrap=True)
            continue
        after = f": {seen.status_before} -> {seen.status_after}"
        output.results.print(escape(about + after), highlight=False, soft_wrap=True)
        for step, was, becomes in seen.changes:
            output.results.print(escape(f"  {step}: {was or 'new'} -> {becomes}"), highlight=False, soft_wrap=True)
        for sent in seen.sends:
            output.results.print(escape(f"  would send {sent}"), highlight=False, soft_wrap=True)
    refused = sum(seen.refusal is not None for seen in previews.values())
    output.note(f"{len(requests)} requests, {refused} of which would be refused; nothing was sent")


def _show_outcomes(
    name: str, requests: Sequence["Request"], answers: "dict[str, Answer] | Any", *, waited: bool, as_json: bool
) -> None:
    rows = [_outcome(request, answers.get(request.id)) for request in requests]
    if as_json:
        output.emit_json(rows)
    else:
        output.show_rows([{k: v for k, v in row.items() if k != "request_id"} for row in rows[:SHOWN_MAX]])
        if len(rows) > SHOWN_MAX:
            output.note(f"the first {SHOWN_MAX} of {len(rows)}: --json has all")
    refused = [row for row in rows if row["outcome"] == "refused"]
    unanswered = [row for row in rows if row["outcome"] == "sent"]
    if len(rows) == 1 and refused:
        raise RefusedError(
            f"the saga refused it: {refused[0]['reason']}",
            kept="the saga, as it was",
            next_step=f"towpath saga show {name} {refused[0]['saga_id']}",
        )
    if refused or (unanswered and waited):
        raise PartlyDoneError(
            f"{len(rows) - len(refused) - len(unanswered)} applied, {len(refused)} refused, "
            f"{len(unanswered)} not answered yet",
            kept="each request in its topic: it takes effect once, however often it is sent",
            next_step=f"towpath saga list {name} --stuck, and towpath status to see whether the saga's worker runs",
        )


def _outcome(request: "Request", answer: "Answer | None") -> dict[str, Any]:
    outcome = "sent" if answer is None else "applied" if answer.refusal is None else "refused"
    return {
        **_plain(request),
        "outcome": outcome,
        "reason": None if answer is None else answer.refusal,
        "status": None if answer is None else answer.status,
    }


def _plain(request: "Request") -> dict[str, Any]:
    return {
        "request_id": request.id,
        "saga_id": request.saga_id,
        "key": request.key,
        "action": request.action.value,
        "step": request.step,
        "item": request.item,
    }


def _place(request: "Request") -> str:
    if not request.step:
        return ""
    return f"{request.step} item {request.item} " if request.item else f"{request.step} "
