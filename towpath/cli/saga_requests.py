"""Verbs by which a person acts on sagas: retry, skip, resume, cancel, and compensate.

Each tries the request on the instance as it stands (the machine is a pure function), shows what it would do, and sends
it. Asked again about the same situation it is the same request: a run that was interrupted is simply run again.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import typer

from towpath.cli import output
from towpath.cli.deciding import require_reason, user_name
from towpath.cli.saga_definitions import find_definition
from towpath.cli.saga_request_options import Options, command_with
from towpath.cli.saga_request_report import show_outcomes, show_previews
from towpath.cli.saga_room import Room, json_of
from towpath.clock import SystemClock, epoch_milliseconds
from towpath.errors import ConfigurationError, NotFoundError, RefusedError, TowpathError
from towpath.settings import Settings, load_settings

if TYPE_CHECKING:
    from towpath.orchestrator.instance_status import KeptInstance
    from towpath.orchestrator.requests import Request
    from towpath.orchestrator.selection import Selection

_MANY = ("status", "version", "older_than", "key", "file", "limit", "rate", "wait", "dry_run", "yes", "as_json")
_BY_CAUSE = ("reason", "actor", "cause", *_MANY)
_REPLY = ("reply", "value", "like")
_OF_STUCK = ("retry", "resume", "skip")
"""What is asked of instances that need a person; of many, of those alone."""


@dataclass(frozen=True, slots=True)
class _Verb:
    """A verb: the options that it takes, and what it says of itself."""

    action: str
    options: tuple[str, ...]
    help: str


_VERBS = (
    _Verb(
        "retry",
        ("step", "item", *_BY_CAUSE),
        "Try a step again that is stuck, or whose undo is; also one that pauses before its next attempt.",
    ),
    _Verb("resume", ("step", *_BY_CAUSE), "Try every step again that is stuck: what kept them from going on is fixed."),
    _Verb(
        "cancel",
        ("step", "reason", "actor", *_MANY),
        "Undo what was done, because the business no longer wants it. Refused past the point of no return.",
    ),
    _Verb(
        "compensate",
        ("step", "reason", "actor", *_MANY),
        "Give up and undo what was done. Refused past the point of no return.",
    ),
    _Verb(
        "skip",
        ("step", "item", *_REPLY, *_BY_CAUSE),
        "Take a reply as the answer of a step that is stuck, because a person knows what became of it.\n\n"
        "For an undo that is stuck or that the participant refused no reply is needed: it counts as undone.",
    ),
)


def register(saga_app: typer.Typer) -> None:
    """Add the verbs to `saga`."""
    for verb in _VERBS:
        saga_app.command(verb.action)(command_with(verb.options, partial(_asked, verb.action), verb.help))


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a person asks, of which instance (None: of those that match), with which options."""

    action: str
    which: str | None
    options: Options

    @property
    def actor(self) -> str:
        """Return who asks."""
        return self.options.actor or user_name()


def _asked(action: str, name: str, which: str | None, options: Options) -> None:
    if options.reply is None and (options.value is not None or options.like):
        raise ConfigurationError("--value and --like need --reply", next_step="name the reply's class: --reply NAME")
    json_of(options.value)  # a slip of the pen is told before anything is asked of the stack
    _act(load_settings(), name, _Asked(action, which, options))


# --- how it is done ---------------------------------------------------------------------------------------------------


def _act(settings: Settings, name: str, asked: _Asked) -> None:
    """Find the instances, try the request on each, and, unless it is a dry run, send it and say what became of it."""
    from towpath.orchestrator.asking import ask
    from towpath.orchestrator.requests import OF_A_STEP, preview
    from towpath.saga.inputs import Action

    options = asked.options
    if not options.dry_run:
        require_reason(options.reason, "a request")
    selection = options.selection(asked.which, of_a_step=Action(asked.action) in OF_A_STEP)
    room = Room(settings, name)
    clock = SystemClock()
    now = epoch_milliseconds(clock)
    chosen = _choose(room.instances(asked.which), name, asked, selection, now)
    requests, previews = [], {}
    for instance in chosen:
        try:
            definition = find_definition(settings, name, instance.state.version)
            request = _request(room, definition, instance, asked)
            seen = preview(definition, instance.state, replace(request, reason=options.reason or "-"), now)
        except (NotFoundError, RefusedError) as error:
            _leave_out(instance, asked, error)
            continue
        requests.append(request)
        previews[request.id] = seen
    if not requests:
        raise NotFoundError(
            f"no instance of {name} can be asked to {asked.action}",
            next_step=f"towpath saga list {name} --stuck" if asked.action in _OF_STUCK else f"towpath saga list {name}",
        )
    if options.dry_run:
        show_previews(requests, previews, as_json=options.as_json)
        return
    if asked.which is None:
        output.ask(f"{asked.action} {output.counted(len(requests), 'instance')} of {name}?", yes=options.yes)

    def progress(sent: int) -> None:
        if asked.which is None:
            output.note(f"{sent} of {len(requests)} sent")

    answers = ask(
        room.broker,
        room.codec,
        clock,
        requests,
        transactional_id=room.transactional_id(asked.actor, asked.action, asked.which),
        wait_seconds=options.wait,
        rate_per_second=options.rate,
        sleep=time.sleep,
        progress=progress,
    )
    show_outcomes(name, requests, answers, waited=options.wait > 0, as_json=options.as_json)


def _leave_out(instance: "KeptInstance", asked: _Asked, error: TowpathError) -> None:
    """Say of one of many why it cannot be asked. Raises `error` where it is the only one."""
    if asked.which is not None:
        raise error
    output.note(f"left out: {instance.state.saga_id} (key {instance.state.key}): {error.cause}")


def _name_unknown(names: frozenset[str], instances: Sequence["KeptInstance"], saga: str) -> None:
    """Say which lines of a file of ids and keys name no instance: they are passed over."""
    known = {name for one in instances for name in (one.state.saga_id, one.state.key)}
    if unknown := sorted(names - known):
        shown = ", ".join(map(repr, unknown[:3])) + (", ..." if len(unknown) > 3 else "")
        output.note(f"{len(unknown)} of {len(names)} lines name no instance of {saga}, and are passed over: {shown}")


def _choose(
    instances: Sequence["KeptInstance"], name: str, asked: _Asked, selection: "Selection", now: int
) -> list["KeptInstance"]:
    if asked.which is None and selection.everything and asked.action in ("cancel", "compensate"):
        raise ConfigurationError(
            f"{asked.action} without an id would take every instance of {name}",
            next_step="name one, or choose with --status, --step, --key, --older-than, --version or --file",
        )
    found = selection.of(instances, now)
    if asked.which is None:
        of_stuck = asked.action in _OF_STUCK
        fitting = [one for one in found if (one.stuck if of_stuck else not one.state.ended)]
        if selection.names is not None:
            _name_unknown(selection.names, instances, name)
            if left := len(found) - len(fitting):
                why = "are not stuck" if of_stuck else "have ended"
                output.note(f"{left} of the instances that the file names {why}, and are left out")
        return fitting if asked.options.limit is None else fitting[: asked.options.limit]
    if instances and not found:
        raise NotFoundError(
            f"instance {asked.which} of {name} does not match what was said beside it",
            next_step=f"leave that out; towpath saga show {name} {asked.which} says how it stands",
        )
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


def _request(room: Room, definition: Any, instance: "KeptInstance", asked: _Asked) -> "Request":
    """Return the request for one instance.

    Raises RefusedError, or NotFoundError (it has no such step, its step takes no such reply), for one that it cannot be
    about.
    """
    from towpath.contract.parse import misspelt
    from towpath.orchestrator.requests import OF_A_STEP, request_of
    from towpath.saga.inputs import Action

    action, options = Action(asked.action), asked.options
    if options.step and options.step not in definition.index:
        raise NotFoundError(
            f"{definition.name} version {definition.version} has no step {options.step}"
            f"{misspelt(options.step, definition.index)}",
            next_step=f"one of: {', '.join(definition.index)}",
        )
    step, item = (options.step, options.item) if action in OF_A_STEP else ("", "")
    request = request_of(instance.state, action, actor=asked.actor, reason=options.reason, step=step, item=item)
    if options.reply is None:
        return request
    position = definition.index.get(request.step)
    among = [] if position is None else _outcome_names(definition.steps[position])
    reply = room.record(options.reply, options.value, like=options.like, among=among)
    return request_of(
        instance.state,
        action,
        actor=asked.actor,
        reason=options.reason,
        step=request.step,
        item=request.item,
        reply=reply,
    )


def _outcome_names(step: Any) -> list[str]:
    from towpath.orchestrator.mapping import wire_name

    undo = () if step.undo is None else step.undo.outcomes
    return [wire_name(kind) for kind in (*step.outcomes, *undo)]
