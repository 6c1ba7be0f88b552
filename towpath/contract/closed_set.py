"""Saga, topic and service say the same of each command and reply, or it is found before one meets the other. Pure.

The rule: what a service may answer, what the step declares and what the topic lists are one closed set. A reply that
the step does not declare would halt the saga; one that nobody answers is a wait in vain.
"""

from collections.abc import Iterable, Iterator, Sequence

from towpath.contract.catalogue import Catalogue, Topic, TopicKind, is_engines
from towpath.contract.finding import Finding
from towpath.contract.parties import Answering, Parties, Party, PartyKind, StepAsking, Use

RULE = "closed-set"


def closed_set_findings(parties: Parties, catalogue: Catalogue) -> tuple[Finding, ...]:
    """Return where saga, topic, service and view contradict each other, each finding once."""
    found: dict[Finding, None] = {}
    for party in parties.by_name.values():
        if party.kind is PartyKind.SAGA:
            for asking in party.asks:
                service = parties.by_name.get(asking.participant)
                # Of a service of another project nothing is known but its topic.
                if service is not None and service.kind is PartyKind.SERVICE:
                    found.update(dict.fromkeys(asking_findings(party, asking, service)))
            found.update(dict.fromkeys(_retention(party, catalogue)))
            found.update(dict.fromkeys(_untaken(party, catalogue)))
        elif party.kind is PartyKind.SERVICE:
            found.update(dict.fromkeys(_service(party, parties, catalogue)))
        elif party.kind is PartyKind.VIEW:
            found.update(dict.fromkeys(_view(party, catalogue)))
    return tuple(found)


def asking_findings(saga: Party, asking: StepAsking, service: Party) -> Iterator[Finding]:
    """Yield where a step of `saga` and the service that it asks contradict each other."""
    step = f"{'the undo of ' if asking.is_undo else ''}step {asking.step} of {saga.label}"
    for command in asking.commands:
        answering = service.answering(command)
        if answering is None:
            yield Finding(
                RULE,
                command,
                f"{step} sends it to {service.label}, which has no handler for it",
                (saga.label,),
                f"{service.label}: add a handler; or {saga.label}: change the step",
            )
            continue
        yield from _outcomes(saga, step, asking, service, answering)
        yield from _undo(saga, step, asking, service, answering)


def _outcomes(saga: Party, step: str, asking: StepAsking, service: Party, answering: Answering) -> Iterator[Finding]:
    declared, answered = asking.succeeds | asking.fails, answering.succeeds | answering.fails
    for reply in sorted(answered - declared):
        argument = "succeeds" if reply in answering.succeeds else "fails"
        yield Finding(
            RULE,
            answering.command,
            f"{service.label} may answer it with {reply}, which {step} does not declare",
            (saga.label,),
            f"{saga.label}: add it to {argument}= there; or {service.label}: take it out of {argument}= of the handler",
        )
    for reply in sorted(declared - answered):
        argument = "succeeds" if reply in asking.succeeds else "fails"
        yield Finding(
            RULE,
            answering.command,
            f"{step} waits for {reply}, which {service.label} never answers",
            (saga.label,),
            f"{service.label}: add it to {argument}= of the handler; or {saga.label}: take it out of {argument}= there",
        )
    for reply in sorted(asking.succeeds & answering.fails | asking.fails & answering.succeeds):
        took, gave = ("success", "failure") if reply in asking.succeeds else ("failure", "success")
        yield Finding(
            RULE,
            answering.command,
            f"{step} takes {reply} for a {took}, and {service.label} answers it as a {gave}",
            (saga.label,),
            f"{service.label} or {saga.label}: say the same of it in succeeds= and fails=",
        )


def _undo(saga: Party, step: str, asking: StepAsking, service: Party, answering: Answering) -> Iterator[Finding]:
    if asking.is_undo and asking.undoes and answering.of not in asking.undoes:
        says = "an ordinary command" if answering.of is None else f"the undo of {answering.of}"
        meant = " or ".join(asking.undoes)
        yield Finding(
            RULE,
            answering.command,
            f"{step} undoes {meant} with it, and to {service.label} it is {says}: "
            "an undo that overtakes what it undoes would be forgotten",
            (saga.label,),
            f"{service.label}: declare it with undo(..., of={meant.rpartition('.')[2]})",
        )
    elif not asking.is_undo and answering.of is not None:
        yield Finding(
            RULE,
            answering.command,
            f"{step} sends it as a command of its own, and to {service.label} it is the undo of {answering.of}",
            (saga.label,),
            f"{service.label}: declare it with handle(...); or {saga.label}: name it as undo= of the other step",
        )


def _service(service: Party, parties: Parties, catalogue: Catalogue) -> Iterator[Finding]:
    topic = catalogue.topics.get(f"{service.name}.{TopicKind.COMMANDS}")
    handled = {answering.command for answering in service.answers}
    listed = frozenset(topic.values) if topic else frozenset()
    for command in sorted(handled - listed):
        yield _unlisted(service, command, f"{service.name}.{TopicKind.COMMANDS}", "handles")
    for command in sorted(listed - handled):
        senders = [
            party.label
            for party in parties.by_name.values()
            if any(command in asking.commands for asking in party.asks)
        ]
        yield Finding(
            RULE,
            f"{service.name}.{TopicKind.COMMANDS}",
            f"it lists {command}, for which {service.label} has no handler",
            tuple(senders) or tuple(topic.producers if topic else ()),
            f"{service.label}: add a handler; or take it out of the saga that sends it, or of "
            f"schemas/topics/{service.name}.commands.yaml",
        )


def _view(view: Party, catalogue: Catalogue) -> Iterator[Finding]:
    folded = {use.record for use in view.reads}
    topics = [catalogue.topics.get(name) for name in dict.fromkeys(use.topic for use in view.reads)]
    known = [topic for topic in topics if topic is not None]
    listed = {value for topic in known for value in topic.values}
    for record in sorted(folded - listed):
        where = " or ".join(topic.name for topic in known) or "its topics"
        yield _unlisted(view, record, where, "folds")
    for topic in known:
        if view.name not in topic.consumers:
            yield Finding(
                RULE,
                topic.name,
                f"{view.label} reads it, and is not among its consumers",
                (view.label,),
                f"towpath contracts generate, or add {view.name} to the consumers in schemas/topics/{topic.name}.yaml",
            )


def _unlisted(party: Party, record: str, topic: str, does: str) -> Finding:
    return Finding(
        RULE,
        topic,
        f"{party.label} {does} {record}, which is not among its values",
        (party.label,),
        f"towpath contracts generate, or add it to schemas/topics/{topic}.yaml; or {party.label}: remove it",
    )


def _untaken(saga: Party, catalogue: Catalogue) -> Iterator[Finding]:
    """Find replies and signals that a saga's topics list, and that none of its steps takes."""
    for kind in (TopicKind.REPLIES, TopicKind.SIGNALS):
        topic = catalogue.topics.get(f"{saga.name}.{kind}")
        taken = {use.record for use in saga.reads if topic is not None and use.topic == topic.name}
        for value in topic.values if topic else ():
            if value not in taken and not is_engines(value):
                yield Finding(
                    RULE,
                    f"{saga.name}.{kind}",
                    f"it lists {value}, which no step of {saga.label} declares",
                    (saga.label,),
                    f"{saga.label}: declare it in succeeds= or fails= of the step that it answers; "
                    f"or take it out of schemas/topics/{saga.name}.{kind}.yaml",
                )


def _retention(saga: Party, catalogue: Catalogue) -> Iterator[Finding]:
    """Find topics that forget an input before the saga that may still wait for it has ended."""
    if saga.deadline_days is None:
        return
    topics: Sequence[Topic] = [catalogue.topics[name] for name in _topics_of(saga) if name in catalogue.topics]
    for topic in topics:
        if topic.retention_days is not None and topic.retention_days < saga.deadline_days:
            yield Finding(
                "retention-below-deadline",
                topic.name,
                f"it keeps records for {topic.retention_days:g} days, and {saga.label} may run for "
                f"{saga.deadline_days:g}",
                (saga.label,),
                f"raise retention_days in schemas/topics/{topic.name}.yaml to {saga.deadline_days:g} or more",
            )


def _topics_of(saga: Party) -> Iterable[str]:
    uses: Iterable[Use] = (*saga.reads, *saga.writes)
    return sorted({use.topic for use in uses})
