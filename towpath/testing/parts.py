"""What a project registers and promises, loaded once for all tests of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from random import Random
from typing import Any

from towpath.contract.catalogue import Catalogue
from towpath.contract.codec import Codec
from towpath.contract.examples import good_examples
from towpath.contract.files import Contracts, load_contracts, schema_sets
from towpath.contract.json_form import write_json
from towpath.contract.record import Record
from towpath.contract.sample import sample
from towpath.errors import ProgrammerError
from towpath.participant.service import Service
from towpath.project import load_sagas, load_services, load_views
from towpath.saga.definition import Definition
from towpath.settings import Settings
from towpath.view.view import View

SEED = 20260101


@dataclass(frozen=True)
class ProjectParts:
    """A project's sagas, services, views (of each the newest version) and contracts.

    `codec` needs no registry: ids follow from the schemas.
    """

    settings: Settings
    contracts: Contracts
    catalogue: Catalogue
    codec: Codec
    sagas: Mapping[str, Mapping[int, Definition]]
    services: Mapping[str, Service]
    views: Sequence[View[Any]]

    @classmethod
    def load(cls, settings: Settings) -> "ProjectParts":
        """Load what `towpath.toml` names. Raises ConfigurationError or ContractError naming what is wrong."""
        contracts = load_contracts(schema_sets(settings))
        return cls(
            settings,
            contracts,
            Catalogue.load(settings),
            Codec.of(contracts),
            load_sagas(settings),
            load_services(settings),
            [view for versions in load_views(settings).values() for view in versions.values()],
        )

    @cached_property
    def _examples(self) -> Mapping[str, Sequence[Record]]:
        return {
            name: [self.codec.from_json(name, content) for content in contents]
            for name, contents in good_examples(self.contracts, self.settings).items()
        }

    def examples(self, kind: type[Record]) -> Sequence[Record]:
        """Return the good examples of a record in `schemas/examples`, in the order of their files' names."""
        return self._examples.get(kind.SCHEMA_NAME, ())

    def example(self, kind: type[Record], like: Record | None = None) -> Record:
        """Return the first good example of a record, or a made one; fields that `like` has too are as they are there.

        A reply that is made like its command so has its order's id.
        """
        shown = self.examples(kind)
        record = shown[0] if shown else self._made(kind)
        if like is None:
            return record
        theirs = {field.name: field.type for field in fields(like)}  # type: ignore[arg-type]
        alike = [field.name for field in fields(kind) if theirs.get(field.name) == field.type]  # type: ignore[arg-type]
        return replace(record, **{name: getattr(like, name) for name in alike})  # type: ignore[type-var]

    def _made(self, kind: type[Record]) -> Record:
        name = kind.SCHEMA_NAME
        datum = sample(self.contracts.schemas, name, Random(f"{SEED}:{name}"))  # noqa: S311 - no secret
        return self.codec.from_json(name, write_json(self.contracts.schemas, name, datum))

    def key_of(self, topic: str, record: Record) -> str:
        """Return the key under which a record travels in a topic: its field that the topic names as key.

        Raises ProgrammerError where the record has no such field.
        """
        name = self.catalogue.topic(topic).key
        found = getattr(record, name, None)
        if found is None:
            raise ProgrammerError(
                f"{type(record).__name__} has no {name}, which is the key of {topic}", next_step="pass key=..."
            )
        return str(found)
