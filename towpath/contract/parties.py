"""Who writes and who reads what: services, sagas, views, and those whom the project does not know. Pure values.

`towpath.parties` fills them from a project's code; a deployment keeps them beside the version that it deployed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self

from towpath.contract.catalogue import Catalogue, TopicKind
from towpath.contract.schema import Schemas

# Names that catalogues use for what the engine itself brings: the view of all instances, and people at the console.
ENGINE_PARTIES: Final = frozenset({"sagas", "operator"})


class PartyKind(StrEnum):
    """What a party is."""

    SERVICE = "service"
    SAGA = "saga"
    VIEW = "view"
    OUTSIDE = "outside"


@dataclass(frozen=True, slots=True)
class Use:
    """One record that a party reads from `topic` or writes to it; `why` says in words as what."""

    record: str
    topic: str
    why: str


@dataclass(frozen=True, slots=True)
class Answering:
    """How a service answers one command; `of` is the command that it undoes, None for what undoes nothing."""

    command: str
    succeeds: frozenset[str]
    fails: frozenset[str]
    of: str | None = None


@dataclass(frozen=True, slots=True)
class StepAsking:
    """A step of a saga: the command (several where its builder chooses, none where its type is not annotated).

    `undoes` is empty for a step's own command, else what that step's own command may be.
    """

    step: str
    participant: str
    commands: tuple[str, ...]
    succeeds: frozenset[str]
    fails: frozenset[str]
    is_undo: bool = False
    undoes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Party:
    """A service, saga, view or outsider. `deadline_days` is the longest deadline of a saga's versions."""

    name: str
    kind: PartyKind
    reads: tuple[Use, ...] = ()
    writes: tuple[Use, ...] = ()
    answers: tuple[Answering, ...] = ()
    asks: tuple[StepAsking, ...] = ()
    deadline_days: float | None = None

    @property
    def label(self) -> str:
        """Return what people call it, as in `saga place_order`."""
        return self.name if self.kind is PartyKind.OUTSIDE else f"{self.kind.value} {self.name}"

    def answering(self, command: str) -> Answering | None:
        """Return how it answers `command`, None where it does not."""
        return next((found for found in self.answers if found.command == command), None)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON; `from_json` reads it back."""
        return {
            "name": self.name,
            "kind": self.kind.value,
            "reads": [[use.record, use.topic, use.why] for use in self.reads],
            "writes": [[use.record, use.topic, use.why] for use in self.writes],
            "answers": [
                {
                    "command": one.command,
                    "succeeds": sorted(one.succeeds),
                    "fails": sorted(one.fails),
                    **({} if one.of is None else {"of": one.of}),
                }
                for one in self.answers
            ],
            "asks": [
                {
                    "step": one.step,
                    "participant": one.participant,
                    "commands": list(one.commands),
                    "succeeds": sorted(one.succeeds),
                    "fails": sorted(one.fails),
                    "is_undo": one.is_undo,
                    "undoes": list(one.undoes),
                }
                for one in self.asks
            ],
            "deadline_days": self.deadline_days,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Return the party that `to_json` wrote. Raises KeyError, TypeError or ValueError for anything else."""
        return cls(
            name=value["name"],
            kind=PartyKind(value["kind"]),
            reads=tuple(Use(*use) for use in value["reads"]),
            writes=tuple(Use(*use) for use in value["writes"]),
            answers=tuple(
                Answering(one["command"], frozenset(one["succeeds"]), frozenset(one["fails"]), one.get("of"))
                for one in value["answers"]
            ),
            asks=tuple(
                StepAsking(
                    one["step"],
                    one["participant"],
                    tuple(one["commands"]),
                    frozenset(one["succeeds"]),
                    frozenset(one["fails"]),
                    one["is_undo"],
                    tuple(one["undoes"]),
                )
                for one in value["asks"]
            ),
            deadline_days=value["deadline_days"],
        )


@dataclass(frozen=True, slots=True)
class Parties:
    """All parties of a project by name, and the schemas that outsiders say they read with."""

    by_name: Mapping[str, Party]
    reader_schemas: Mapping[str, Mapping[str, Schemas]]

    @classmethod
    def of(
        cls,
        known: Iterable[Party],
        catalogue: Catalogue,
        reader_schemas: Mapping[str, Mapping[str, Schemas]] | None = None,
    ) -> Self:
        """Add to the project's own parties whoever else the catalogue names.

        An outsider that keeps reader schemas (`schemas/readers/<name>`) reads those records and no others: in the
        topics that name it, or where none does, in all that carry them. One that keeps none may read everything in the
        topics that name it.
        """
        found = {party.name: party for party in known}
        declared = reader_schemas or {}
        names = {name for topic in catalogue.live() for name in (*topic.producers, *topic.consumers)}
        for name in sorted((names | declared.keys()) - found.keys()):
            mine = declared.get(name)
            named = [topic for topic in catalogue.live() if name in topic.consumers]
            # What it keeps a schema of and no topic tells it of: topics that follow from code know no outsiders.
            untold = (mine or {}).keys() - {value for topic in named for value in topic.values}
            reads = [
                Use(value, topic.name, "read from the topic")
                for topic in catalogue.live()
                for value in topic.values
                if value in untold or (topic in named and (mine is None or value in mine))
            ]
            writes = [
                Use(value, topic.name, "written to the topic")
                for topic in catalogue.live()
                if name in topic.producers
                for value in topic.values
            ]
            found[name] = Party(name, PartyKind.OUTSIDE, tuple(reads), tuple(writes))
        return cls(found, declared)

    def readers(self, record: str) -> tuple[tuple[Party, Use], ...]:
        """Return who reads `record`, and where, by name."""
        return tuple(
            (party, use) for _, party in sorted(self.by_name.items()) for use in party.reads if use.record == record
        )

    def writers(self, record: str) -> tuple[tuple[Party, Use], ...]:
        """Return who writes `record`, and where, by name."""
        return tuple(
            (party, use) for _, party in sorted(self.by_name.items()) for use in party.writes if use.record == record
        )

    def passing_over(self, record: str, topic: str) -> tuple[Party, ...]:
        """Return who reads `topic` but not `record`: whatever becomes of it does not concern them."""
        return tuple(
            party
            for _, party in sorted(self.by_name.items())
            if any(use.topic == topic for use in party.reads)
            and not any(use.topic == topic and use.record == record for use in party.reads)
        )


def kept_days(catalogue: Catalogue, topic: str) -> float | None:
    """Return for how long a record in `topic` may still be read, in days; None: for ever.

    What was dead-lettered on its last day is kept for the dead-letter topic's time as well, then redriven.
    """
    found = catalogue.topic(topic)
    dead = catalogue.dead_letter(topic)
    if found.retention_days is None or (dead is not None and dead.retention_days is None):
        return None
    return found.retention_days + (dead.retention_days or 0 if dead is not None else 0)


def kept_in_words(catalogue: Catalogue, topic: str) -> str:
    """Return that time in words."""
    if catalogue.topic(topic).kind is TopicKind.STATE:
        return "until an instance has ended"
    days = kept_days(catalogue, topic)
    return "for ever" if days is None else f"for {days:g} days"
