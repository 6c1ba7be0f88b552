"""Compares two moments of a project's contracts: what would break, for whom, and in which order to deploy. Pure."""

from collections.abc import Iterable, Iterator

from towpath.contract.catalogue import Catalogue, Compatibility
from towpath.contract.compatibility import Break, breaks
from towpath.contract.files import Contracts
from towpath.contract.finding import Finding, Severity, in_order
from towpath.contract.meaning import Lint, lints
from towpath.contract.parties import Parties
from towpath.contract.promises import TODAY, Form, compare_forms, promise_of
from towpath.contract.schema import Schemas
from towpath.contract.snapshot import Snapshot, whole
from towpath.contract.topic_changes import topic_changes


def compare(old: Snapshot, new: Snapshot, parties: Parties, *, new_label: str = TODAY) -> tuple[Finding, ...]:
    """Return everything that `new` changes of what `old` promised and that would hit somebody.

    `parties` are those of `new`. What is compatible, and means the same, is no finding.
    """
    assert new.catalogue is not None
    found: list[Finding] = []
    if old.catalogue is not None:
        found += topic_changes(old.catalogue, new.catalogue, parties)
    broken: set[str] = set()
    for name, before in old.records.items():
        after = new.records.get(name)
        if after is None:
            found += _removed(name, old)
            continue
        forms = [Form(f"{old.label}", before, 0), Form(new_label, after, None)]
        compared = compare_forms(name, forms, new.catalogue, parties).findings
        broken |= {_last(finding.place) for finding in compared}
        found += compared
        found += _order(name, old, new, parties, new.catalogue)
        told = {finding.place for finding in compared}
        found += (one for one in _outsiders(name, before, after, parties, new_label) if one.place not in told)
    found += [finding for finding in meaning_changes(old, new) if _last(finding.place) not in broken]
    return in_order(found)


def meaning_changes(old: Snapshot, new: Snapshot) -> Iterator[Finding]:
    """Yield what changed its meaning, once for each named type, under the record that it is first found in."""
    after = new.named()
    for name, (record, schema) in old.named().items():
        if name in after:
            yield from (lint_finding(record, lint) for lint in lints(schema, after[name][1]))


def meaning_since_release(contracts: Contracts, records: Iterable[str]) -> Iterator[Finding]:
    """Yield what changed its meaning since the latest released version of each of `records`."""
    before, after = {}, {}
    for name in records:
        if name in contracts.schemas and (versions := contracts.versions(name)):
            before[name] = versions[max(versions)]
            after[name] = whole(contracts.schemas, name)
    yield from meaning_changes(Snapshot("the latest release", before), Snapshot("today", after))


def lint_finding(record: str, lint: Lint) -> Finding:
    """Return a lint as a finding of `record`."""
    return Finding(lint.rule, record, f"{lint.place}: {lint.problem}", fix=lint.fix, place=lint.place)


def _removed(name: str, old: Snapshot) -> Iterator[Finding]:
    topics = () if old.catalogue is None else old.catalogue.carrying(name)
    readers = dict.fromkeys(consumer for topic in topics for consumer in topic.consumers)
    yield Finding(
        "record-removed",
        name,
        f"it is gone, and {', '.join(topic.name for topic in topics) or 'topics'} may hold records of it",
        tuple(readers),
        "keep it until those topics have forgotten the last record of it",
    )


def _order(name: str, old: Snapshot, new: Snapshot, parties: Parties, catalogue: Catalogue) -> Iterator[Finding]:
    """Say who is deployed first where one direction breaks that no topic promises."""
    promise = promise_of(name, catalogue, parties)
    before, after = old.records[name], new.records[name]
    ahead = breaks(name, reader=before, writer=after)
    back = breaks(name, reader=after, writer=before)
    readers = ", ".join(dict.fromkeys(party.label for party, _ in parties.readers(name))) or "its readers"
    writers = ", ".join(dict.fromkeys(party.label for party, _ in parties.writers(name))) or "its writers"
    if ahead and not promise.forward and promise is not Compatibility.NONE:
        words = f"deploy {readers} before {writers}: {_places(ahead)}"
        yield _advice(name, words, "old readers cannot read what the new form writes")
    if back and not promise.backward and promise is not Compatibility.NONE:
        words = f"deploy {writers} before {readers}, and these once old records are gone: {_places(back)}"
        yield _advice(name, words, "new readers cannot read what the old form wrote")


def _advice(name: str, words: str, why: str) -> Finding:
    return Finding("deploy-order", name, f"{why}, and no topic promises it", fix=words, severity=Severity.WARNING)


def _outsiders(name: str, before: Schemas, after: Schemas, parties: Parties, label: str) -> Iterator[Finding]:
    """Yield what breaks a consumer that keeps its own reader schema, where it read what the old form wrote."""
    for consumer, records in sorted(parties.reader_schemas.items()):
        if name not in records:
            continue
        known = set(breaks(name, reader=records[name], writer=before))
        for item in breaks(name, reader=records[name], writer=after):
            if item not in known:
                yield Finding(
                    "compatibility",
                    name,
                    f"{consumer} cannot read what {label} writes: {item}",
                    (f"{consumer} (schemas/readers/{consumer})",),
                    item.fix_of(reader=False),
                    place=item.place,
                )


def _places(found: tuple[Break, ...]) -> str:
    return ", ".join(dict.fromkeys(item.place for item in found))


def _last(place: str) -> str:
    """Return the last field of a path: a lint names the type that holds it, a break the way to it."""
    return place.rpartition(".")[2].rstrip("[]{}")
