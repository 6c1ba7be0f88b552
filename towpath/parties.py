"""Who reads and writes what in a project, told by its own code: handlers, steps and folds name their records.

The rule: nothing is declared twice. What a consumer needs of a schema is what its generated classes say.
"""

import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from towpath.contract.catalogue import Catalogue, TopicKind
from towpath.contract.parties import Answering, Parties, Party, PartyKind, StepAsking, Use
from towpath.contract.readers import load_reader_schemas
from towpath.orchestrator.mapping import wire_name
from towpath.participant.service import Service
from towpath.project import load_sagas, load_services, load_views
from towpath.saga import Definition
from towpath.saga.definition import Activity, StepDefinition
from towpath.settings import Settings
from towpath.view import View

_DAY_MILLISECONDS = 86_400_000


def load_parties(settings: Settings, catalogue: Catalogue) -> Parties:
    """Return the parties of the project that `settings` describe. Raises what `towpath.project` raises."""
    has_sagas = settings.root.joinpath(*settings.project.sagas.split(".")).is_dir()
    sagas = load_sagas(settings) if has_sagas else {}
    known = [
        *(party_of_saga(name, versions.values(), catalogue) for name, versions in sagas.items()),
        *(party_of_service(service, sagas, catalogue) for service in load_services(settings).values()),
        *(party_of_view(catalogue, *versions.values()) for versions in load_views(settings).values()),
    ]
    folder = settings.root / settings.project.schemas / "readers"
    return Parties.of(known, catalogue, load_reader_schemas(folder))


def party_of_service(service: Service, sagas: Mapping[str, Mapping[int, Definition]], catalogue: Catalogue) -> Party:
    """Return what `service` answers, and where: its replies go to each saga that asks it."""
    answers = tuple(
        Answering(
            wire_name(handling.command),
            frozenset(map(wire_name, handling.succeeds)),
            frozenset(map(wire_name, handling.fails)),
            None if handling.of is None else wire_name(handling.of),
        )
        for handling in service.handlings.values()
    )
    reads = [Use(one.command, service.commands_topic, "a command") for one in answers]
    replies = {reply for one in answers for reply in one.succeeds | one.fails}
    # An undo is given the recorded reply of what it undoes: the inbox is read as well.
    undone = {one.of for one in answers if one.of is not None}
    for one in answers:
        if one.command in undone:
            reads += [
                Use(reply, service.commands_topic, "a reply recorded in its inbox") for reply in sorted(one.succeeds)
            ]
    asking = {
        definition.name
        for versions in sagas.values()
        for definition in versions.values()
        for step in definition.steps
        if service.name in (step.participant, step.undo.participant if step.undo else "")
    }
    writes = [
        Use(value, topic.name, "a reply" if topic.kind is TopicKind.REPLIES else "an event")
        for topic in catalogue.live()
        if service.name in topic.producers
        for value in topic.values
        if topic.kind is not TopicKind.REPLIES or value in replies
    ]
    lost = {use.topic for use in writes}
    writes += [
        Use(reply, f"{saga}.{TopicKind.REPLIES}", "a reply")
        for saga in sorted(asking)
        if f"{saga}.{TopicKind.REPLIES}" not in lost
        for reply in sorted(replies)
    ]
    return Party(service.name, PartyKind.SERVICE, tuple(reads), tuple(writes), answers)


def party_of_saga(name: str, versions: Iterable[Definition], catalogue: Catalogue) -> Party:
    """Return what all versions of a saga read and write together: they run side by side."""
    reads: dict[Use, None] = {}
    writes: dict[Use, None] = {}
    asks: dict[StepAsking, None] = {}
    deadlines: list[int] = []
    for definition in versions:
        deadlines.append(definition.deadline_milliseconds)
        for use in _starts(definition, catalogue):
            reads[use] = None
        for step in definition.steps:
            for asking in _asked(step):
                asks[asking] = None
                for command in asking.commands:
                    writes[Use(command, f"{asking.participant}.{TopicKind.COMMANDS}", f"sent by {step.key}")] = None
            for use in _answered(name, step):
                reads[use] = None
    days = max(deadlines, default=0) / _DAY_MILLISECONDS
    # What it was told is carried in its state and its history, and read from there again.
    kept = [
        Use(use.record, f"{name}.{TopicKind.STATE}", "kept in its state")
        for use in reads
        if f"{name}.{TopicKind.STATE}" in catalogue.topics
    ]
    told = [
        Use(use.record, f"{name}.{TopicKind.HISTORY}", "told in its history")
        for use in reads
        if f"{name}.{TopicKind.HISTORY}" in catalogue.topics
    ]
    own = [
        Use(value, topic.name, "written by the engine")
        for topic in catalogue.live()
        if topic.owner == name and topic.kind in {TopicKind.STATE, TopicKind.HISTORY, TopicKind.TIMERS}
        for value in topic.values
    ]
    everything = (*reads, *dict.fromkeys([*kept, *told]), *own)
    return Party(name, PartyKind.SAGA, everything, (*writes, *own), (), tuple(asks), days)


def party_of_view(catalogue: Catalogue, *versions: View[Any]) -> Party:
    """Return what the versions of a view fold, passing over every other record of their topics, and what they tell."""
    reads = {
        Use(wire_name(record), topic, "folded") for view in versions for topic in view.topics for record in view.folds
    }
    writes = {
        Use(value, topic.name, "a change of a row")
        for view in versions
        if view.changes is not None
        for topic in [catalogue.topic(view.changes.topic)]
        for value in topic.values
    }
    return Party(
        versions[0].name,
        PartyKind.VIEW,
        tuple(sorted(reads, key=lambda use: (use.topic, use.record))),
        tuple(sorted(writes, key=lambda use: (use.topic, use.record))),
    )


def _starts(definition: Definition, catalogue: Catalogue) -> Iterator[Use]:
    start = wire_name(definition.starts_on)
    signals = f"{definition.name}.{TopicKind.SIGNALS}"
    for topic in catalogue.carrying(start):
        if definition.name in topic.consumers and topic.kind is TopicKind.EVENTS:
            yield Use(start, topic.name, "its start event")
        elif topic.name == signals:
            yield Use(start, topic.name, "its start event, from a parent")


def _asked(step: StepDefinition) -> Iterator[StepAsking]:
    own = commands_of(step.build) if step.activity is Activity.COMMAND else ()
    if step.activity is Activity.COMMAND:
        yield StepAsking(step.key, step.participant, own, *_outcomes(step.outcomes))
    if step.undo is not None and step.undo.build is not None:
        by = step.undo.participant or step.participant
        # The undo of the start event undoes no command, and one by another participant none of that participant's.
        undoes = own if by == step.participant and step.activity is Activity.COMMAND else ()
        yield StepAsking(step.key, by, commands_of(step.undo.build), *_outcomes(step.undo.outcomes), True, undoes)


def _answered(saga: str, step: StepDefinition) -> Iterator[Use]:
    waits = step.activity is Activity.WAIT
    topic = f"{saga}.{TopicKind.SIGNALS if waits else TopicKind.REPLIES}"
    for reply in step.outcomes:
        yield Use(wire_name(reply), topic, f"a {'signal' if waits else 'reply'} to {step.key}")
    if step.undo is not None:
        for reply in step.undo.outcomes:
            yield Use(wire_name(reply), f"{saga}.{TopicKind.REPLIES}", f"a reply to the undo of {step.key}")


def _outcomes(outcomes: Mapping[type, bool]) -> tuple[frozenset[str], frozenset[str]]:
    succeeds = frozenset(wire_name(reply) for reply, ok in outcomes.items() if ok)
    return succeeds, frozenset(map(wire_name, outcomes)) - succeeds


def commands_of(build: Callable[..., object] | None) -> tuple[str, ...]:
    """Return the records that a builder is annotated to return, sorted; none where that cannot be read."""
    try:
        hint = typing.get_type_hints(build).get("return")
    except (TypeError, NameError):
        return ()
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return tuple(sorted(wire_name(option) for option in options if hasattr(option, "SCHEMA_NAME")))
