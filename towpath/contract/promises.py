"""Compares the forms of a record that can still meet, and says whom a break hits. Pure.

The rule: one finding a cause. A field that breaks three versions for four consumers is one finding that names them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from towpath.contract.catalogue import Catalogue, Compatibility, Topic, TopicKind
from towpath.contract.compatibility import Break, breaks
from towpath.contract.finding import Finding
from towpath.contract.parties import Parties, Party, Use, kept_in_words
from towpath.contract.schema import Schemas
from towpath.contract.witness import witness

TODAY = "the form of today"


@dataclass(frozen=True, slots=True)
class Form:
    """One form of a record: a released version, that of today, or one that is compared with it."""

    label: str
    schemas: Schemas
    version: int | None


@dataclass(slots=True)
class Comparison:
    """What came of comparing the forms of one record: `holding` has the (writer, reader) labels that are promised."""

    findings: list[Finding] = field(default_factory=list)
    holding: set[tuple[str, str]] = field(default_factory=set)


@dataclass(slots=True)
class _Cause:
    """One break, and the labels of the forms between which it stands."""

    item: Break
    backward: bool
    readers: dict[str, Form] = field(default_factory=dict)
    writers: dict[str, Form] = field(default_factory=dict)


def promise_of(record: str, catalogue: Catalogue, parties: Parties) -> Compatibility:
    """Return what a record's schema promises: what its topics say, and that what is kept can be read again.

    A saga's state, its history and a service's inbox hold records for as long as they live, whatever the topic that
    brought them promises.
    """
    promise = catalogue.compatibility(record)
    if any(is_kept(use, catalogue) for _, use in parties.readers(record)):
        promise |= Compatibility.BACKWARD_TRANSITIVE
    return promise


def is_kept(use: Use, catalogue: Catalogue) -> bool:
    """Return whether a record is read from where it was kept, rather than from the topic that carries it."""
    topic = catalogue.topics.get(use.topic)
    return (topic is not None and use.record not in topic.values) or "inbox" in use.why


def compare_forms(name: str, forms: Sequence[Form], catalogue: Catalogue, parties: Parties) -> Comparison:
    """Compare each of `forms`, the oldest first, with those before it, as far as promises of `name` reach."""
    promise = promise_of(name, catalogue, parties)
    done = Comparison(holding={(form.label, form.label) for form in forms})
    causes: dict[tuple[bool, str, str], _Cause] = {}
    for place, new in enumerate(forms):
        earlier = forms[:place] if promise.transitive else forms[max(place - 1, 0) : place]
        for old in earlier:
            for promised, writer, reader in ((promise.backward, old, new), (promise.forward, new, old)):
                if not promised:
                    continue
                found = breaks(name, reader=reader.schemas, writer=writer.schemas)
                if not found:
                    done.holding.add((writer.label, reader.label))
                for item in found:
                    backward = reader is new
                    cause = causes.setdefault((backward, item.place, item.problem), _Cause(item, backward))
                    cause.readers[reader.label] = reader
                    cause.writers[writer.label] = writer
    by_place: dict[str, list[Finding]] = {}
    for cause in causes.values():
        by_place.setdefault(cause.item.place, []).append(_finding(name, cause, catalogue, parties))
    done.findings = [_merged(found) for found in by_place.values()]
    return done


def _merged(found: Sequence[Finding]) -> Finding:
    """Return what is wrong at one place as one finding: a type that changed breaks both directions."""
    if len(found) == 1:
        return found[0]
    return replace(
        found[0],
        problem="; ".join(one.problem for one in found),
        breaks=tuple(dict.fromkeys(who for one in found for who in one.breaks)),
        fix=" or ".join(dict.fromkeys(one.fix for one in found)),
        sample=next((one.sample for one in found if one.sample), ""),
    )


def _finding(name: str, cause: _Cause, catalogue: Catalogue, parties: Parties) -> Finding:
    readers, writers = _several(cause.readers), _several(cause.writers)
    reader, writer = next(iter(cause.readers.values())), next(iter(cause.writers.values()))
    shown = witness(name, reader=reader.schemas, writer=writer.schemas, place=cause.item.place)
    return Finding(
        "compatibility",
        name,
        f"readers of {readers} cannot read what {writers} {'wrote' if cause.backward else 'writes'}: {cause.item}",
        breaks=tuple(_who_breaks(name, cause.backward, catalogue, parties)),
        fix=cause.item.fix_of(reader=cause.backward),
        unaffected=tuple(sorted({party.label for party in _passing_over(name, catalogue, parties)})),
        place=cause.item.place,
        sample="" if shown is None else str(shown),
    )


def _several(forms: dict[str, Form]) -> str:
    labels = list(forms)
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"


def _who_breaks(record: str, backward: bool, catalogue: Catalogue, parties: Parties) -> Iterator[str]:
    """Say who is hit, topic by topic, then where records are kept."""
    readers = parties.readers(record)
    for topic in catalogue.carrying(record):
        if topic.compatibility.backward if backward else topic.compatibility.forward:
            here = [party for party, use in readers if use.topic == topic.name and not is_kept(use, catalogue)]
            yield _who(topic, here, catalogue, backward=backward)
    if backward:
        kept = {(party.label, use.topic, use.why) for party, use in readers if is_kept(use, catalogue)}
        for label, topic_name, why in sorted(kept):
            yield f"{label} ({why}, {kept_in_words(catalogue, topic_name)})"


def _passing_over(record: str, catalogue: Catalogue, parties: Parties) -> Iterator[Party]:
    for topic in catalogue.carrying(record):
        for party in parties.passing_over(record, topic.name):
            if party.name in topic.consumers:
                yield party


def _who(topic: Topic, readers: Sequence[Party], catalogue: Catalogue, *, backward: bool) -> str:
    names = ", ".join(dict.fromkeys(party.name for party in readers))
    who = names or ("its own store" if topic.kind is TopicKind.STATE else "whoever reads it")
    if backward:
        return f"{who} (reading {topic.name}, which keeps such records {kept_in_words(catalogue, topic.name)})"
    return f"{who} (reading {topic.name}, as soon as {', '.join(topic.producers)} is deployed)"
