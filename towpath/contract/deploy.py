"""Says whether a version of one party can join those that run in an environment, and in which order to deploy. Pure.

The rule: a version meets every other that runs, what those wrote that topics still hold, and its own predecessor while
it is rolled out. What was retired counts for as long as a topic keeps its records, or a saga may still carry them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Self

from towpath.contract.catalogue import Catalogue
from towpath.contract.closed_set import asking_findings
from towpath.contract.compatibility import breaks
from towpath.contract.finding import Finding, Severity, in_order
from towpath.contract.parties import ENGINE_PARTIES, Parties, Party, PartyKind, Use, kept_days
from towpath.contract.promises import is_kept
from towpath.contract.schema import Schemas
from towpath.contract.snapshot import schemas_of
from towpath.contract.witness import witness

RULE: Final = "can-deploy"


@dataclass(frozen=True, slots=True)
class Deployment:
    """One version of a party, with the schemas that it reads and writes; `until` is set once it was replaced."""

    party: Party
    version: str
    schemas: Mapping[str, Schemas]
    at: datetime
    actor: str = ""
    until: datetime | None = None

    @property
    def label(self) -> str:
        """Return name and version, as in `payment@1.4.0`; an outsider of whom no version is recorded has none."""
        return f"{self.party.name}@{self.version}" if self.version else f"{self.party.name} (another project's)"

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON; `from_json` reads it back."""
        return {
            "version": self.version,
            "at": self.at.isoformat(),
            "until": None if self.until is None else self.until.isoformat(),
            "actor": self.actor,
            "party": self.party.to_json(),
            "schemas": {name: schemas.avro(name, docs=False) for name, schemas in sorted(self.schemas.items())},
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], source: str) -> Self:
        """Return the deployment that `to_json` wrote; `source` names it in errors."""
        return cls(
            party=Party.from_json(value["party"]),
            version=value["version"],
            schemas={name: schemas_of(name, avro, source) for name, avro in value["schemas"].items()},
            at=datetime.fromisoformat(value["at"]),
            actor=value["actor"],
            until=None if value["until"] is None else datetime.fromisoformat(value["until"]),
        )


@dataclass(frozen=True, slots=True)
class Environment:
    """What runs in one environment, and what ran there not long ago.

    `outbox_days` is for how long a service's outbox holds what it wrote: an audit may send it again on the last day.
    """

    name: str
    running: tuple[Deployment, ...] = ()
    retired: tuple[Deployment, ...] = ()
    outbox_days: float = 0.0

    def of(self, party: str) -> tuple[Deployment, ...]:
        """Return the versions of `party` that run."""
        return tuple(one for one in self.running if one.party.name == party)

    def deployed(self, new: Deployment, *, beside: bool = False) -> "Environment":
        """Return the environment once `new` runs: instead of the versions before it, or `beside` them."""
        same = [one for one in self.running if one.label == new.label]
        replaced = [
            replace(one, until=new.at)
            for one in self.running
            if one.party.name == new.party.name and not beside and one not in same
        ]
        kept = [
            one for one in self.running if one not in same and not any(one.label == gone.label for gone in replaced)
        ]
        again = [one for one in self.retired if one.label != new.label]
        return replace(self, running=(*kept, new), retired=(*again, *replaced))


def with_outsiders(environment: Environment, parties: Parties, now: datetime) -> Environment:
    """Return the environment with those whom no deployment records, since they are not of this project.

    An outsider reads with the schemas that it keeps here; one that keeps none is taken to live with the forms that run
    (nobody has broken it so far), and where nothing runs there is nothing that it could have lived with.
    """
    running = {record: schemas for one in environment.running for record, schemas in one.schemas.items()}
    found: list[Deployment] = []
    for name, party in sorted(parties.by_name.items()):
        if party.kind is not PartyKind.OUTSIDE or name in ENGINE_PARTIES or environment.of(name):
            continue
        written = {use.record for use in party.writes}
        kept = parties.reader_schemas.get(name, {})
        schemas = {**running, **{record: kept[record] for record in kept.keys() - written}}
        used = written | {use.record for use in party.reads}
        found.append(Deployment(party, "", {one: schemas[one] for one in sorted(used & schemas.keys())}, now))
    return replace(environment, running=(*environment.running, *found))


def forgotten(
    deployment: Deployment, catalogue: Catalogue, now: datetime, deadline_days: float, outbox_days: float = 0.0
) -> bool:
    """Return whether nothing that a retired version wrote can be met any more.

    `deadline_days` is the longest deadline of any saga: it may carry a record for so long after it read it.
    """
    windows = [_window(use, catalogue) for use in deployment.party.writes]
    if deployment.until is None or None in windows:
        return False
    longest = max((window or 0 for window in windows), default=0) + deadline_days
    longest += _outbox_days(deployment, outbox_days)
    return deployment.until + timedelta(days=longest) < now


def can_deploy(
    new: Deployment,
    environment: Environment,
    catalogue: Catalogue,
    *,
    here: Mapping[str, Deployment],
    now: datetime,
) -> tuple[Finding, ...]:
    """Return what would break if `new` were deployed to `environment` now.

    `here` are the parties as they are in this folder: where the other side has to go first, they say whether that is
    enough.
    """
    found = list(_breaks(new, environment, catalogue, now))
    if any(one.fails for one in found):
        found = [replace(one, fix=_with_order(one, new, environment, catalogue, here, now)) for one in found]
    known = {one.party.name for one in environment.running} | {new.party.name}
    for name in sorted({asking.participant for asking in new.party.asks} - known):
        found.append(
            Finding(
                RULE,
                new.label,
                f"nothing is known of {name} in {environment.name}: it was never recorded there",
                fix=f"towpath contracts deployed {name}@VERSION --to {environment.name}",
                severity=Severity.WARNING,
            )
        )
    return in_order(found)


def deploy_order(
    new: Sequence[Deployment], environment: Environment, catalogue: Catalogue, now: datetime
) -> tuple[tuple[Deployment, ...], tuple[Deployment, ...]]:
    """Return an order in which `new` can be deployed one after the other, and those for which there is none."""
    left = sorted(new, key=lambda one: one.label)
    done: list[Deployment] = []
    while left:
        ready = next((one for one in left if not _fails(_breaks(one, environment, catalogue, now))), None)
        if ready is None:
            break
        left.remove(ready)
        done.append(ready)
        environment = environment.deployed(ready)
    return tuple(done), tuple(left)


def _breaks(new: Deployment, environment: Environment, catalogue: Catalogue, now: datetime) -> Iterator[Finding]:
    causes: dict[tuple[str, str, str, bool], tuple[Finding, list[str]]] = {}
    for finding, who in _met(new, environment, catalogue, now):
        key = (finding.subject, finding.place, finding.problem, finding.sample == "")
        causes.setdefault(key, (finding, []))[1].append(who)
    for finding, hit in causes.values():
        yield replace(finding, breaks=tuple(dict.fromkeys(hit)))
    yield from _closed_set(new, environment)


def _met(
    new: Deployment, environment: Environment, catalogue: Catalogue, now: datetime
) -> Iterator[tuple[Finding, str]]:
    """Yield each break of what `new` reads and of what it writes, with who is hit."""
    for use in new.party.reads:
        kept = is_kept(use, catalogue)
        for other in (*environment.running, *environment.retired):
            wrote = any(one.record == use.record and (kept or one.topic == use.topic) for one in other.party.writes)
            if wrote and _still_met(other, use, new.party, catalogue, now, environment.outbox_days):
                words = f"cannot read what {other.label} {'writes' if other.until is None else 'wrote'}"
                why = f"{new.label} ({use.why}, {use.topic})"
                yield from ((one, why) for one in _compared(new, new, other, use, words))
    for use in new.party.writes:
        for other in environment.running:
            if other.label != new.label and any(_meets(one, use) for one in other.party.reads):
                words = f"writes what {other.label} cannot read"
                why = f"{other.label} (reading {use.topic})"
                yield from ((one, why) for one in _compared(new, other, new, use, words))


def _meets(read: Use, written: Use) -> bool:
    return (read.record, read.topic) == (written.record, written.topic)


def _compared(new: Deployment, reader: Deployment, writer: Deployment, use: Use, words: str) -> Iterator[Finding]:
    mine, theirs = reader.schemas.get(use.record), writer.schemas.get(use.record)
    if mine is None or theirs is None:
        return
    for item in breaks(use.record, reader=mine, writer=theirs):
        shown = witness(use.record, reader=mine, writer=theirs, place=item.place)
        yield Finding(
            RULE,
            use.record,
            f"{new.label} {words}: {item}",
            fix=item.fix_of(reader=reader is new),
            place=item.place,
            sample="" if shown is None else str(shown),
        )


def _still_met(
    writer: Deployment, use: Use, reader: Party, catalogue: Catalogue, now: datetime, outbox_days: float
) -> bool:
    if writer.until is None:
        return True
    window = _window(use, catalogue)
    if window is None:
        # Kept until an instance has ended: for as long as the saga that keeps it may run.
        window = reader.deadline_days if is_kept(use, catalogue) else None
    return window is None or writer.until + timedelta(days=window + _outbox_days(writer, outbox_days)) >= now


def _outbox_days(writer: Deployment, outbox_days: float) -> float:
    """Return for how many days what it wrote lies in an outbox: a service's does, sagas write to Kafka themselves."""
    return outbox_days if writer.party.kind is PartyKind.SERVICE else 0.0


def _window(use: Use, catalogue: Catalogue) -> float | None:
    """Return for how many days a record may be read after it was written; None: for ever, or until an instance ends."""
    return kept_days(catalogue, use.topic) if use.topic in catalogue.topics else 0.0


def _closed_set(new: Deployment, environment: Environment) -> Iterator[Finding]:
    """Yield commands and replies that one side has and the other, as it runs, has not."""
    others = [one for one in environment.running if one.party.name != new.party.name]
    for other in others:
        saga, service = (new, other) if new.party.kind is PartyKind.SAGA else (other, new)
        if saga.party.kind is not PartyKind.SAGA or service.party.kind is not PartyKind.SERVICE:
            continue
        for asking in saga.party.asks:
            if asking.participant == service.party.name:
                for found in asking_findings(saga.party, asking, service.party):
                    yield replace(found, rule=RULE, breaks=(f"{other.label} beside {new.label}",))


def _with_order(
    finding: Finding,
    new: Deployment,
    environment: Environment,
    catalogue: Catalogue,
    here: Mapping[str, Deployment],
    now: datetime,
) -> str:
    """Return the fix of a finding, with the order of deployment that avoids it, if there is one."""
    if not finding.fails:
        return finding.fix
    for name, other in sorted(here.items()):
        if name == new.party.name or not any(one.party.name == name for one in environment.running):
            continue
        if not any(name in who.partition("@")[0].split() for who in (*finding.breaks, finding.problem)) and (
            f" {name}@" not in f" {finding.problem}"
        ):
            continue
        first = environment.deployed(other)
        if _fails(_breaks(other, environment, catalogue, now)):
            continue
        # What the old form wrote is still met afterwards: then the problem has other words, and the same place.
        left = {(one.subject, one.place) for one in _breaks(new, first, catalogue, now) if one.fails}
        if (finding.subject, finding.place) not in left:
            return f"deploy {name} as it is in this folder first, then {new.party.name}"
    return f"{finding.fix}: in two steps, so that old and new can run side by side"


def _fails(findings: Iterable[Finding]) -> bool:
    return any(one.fails for one in findings)
