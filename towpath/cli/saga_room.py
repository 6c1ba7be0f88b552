"""What a person's requests to a saga need at hand: catalogue, codec and broker, and records as a person writes them."""

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from towpath.errors import ConfigurationError, NotFoundError
from towpath.settings import Settings

if TYPE_CHECKING:
    from towpath.contract.catalogue import Catalogue, Topic
    from towpath.contract.codec import Codec
    from towpath.orchestrator.instance_status import KeptInstance


def own_topic(settings: Settings, catalogue: "Catalogue", saga: str, kind: str) -> "Topic":
    """Return a saga's own topic of some kind. Raises NotFoundError, with what was probably meant."""
    from towpath.contract.parse import misspelt
    from towpath.orchestrator import envelope
    from towpath.project import load_sagas

    name = envelope.topic_of(saga, kind)
    if name not in catalogue.topics and saga not in (known := load_sagas(settings)):
        said = f"use one of {', '.join(sorted(known))}" if known else "towpath add saga NAME makes one"
        raise NotFoundError(f"this project has no saga {saga!r}{misspelt(saga, known)}", next_step=said)
    return catalogue.topic(name)


def json_of(text: str | None) -> Any:
    """Return what a person wrote as JSON, an empty object for nothing. Raises ConfigurationError."""
    try:
        return json.loads(text or "{}")
    except ValueError as error:
        raise ConfigurationError(f"this is no JSON: {error}", next_step="write an object: '{...}'") from error


class Room:
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

    def transactional_id(self, actor: str, action: str, which: str | None) -> str:
        """Return the id of a person's producer: of two runs that do the same, the later one ends the earlier.

        `which` is the one instance, or the one signal, that the run is about; None where it is about several.
        """
        about = "" if which is None else f"-{which}"
        return f"{self.settings.project.name}-operator-{actor}-{action}-{self.saga}{about}"

    def instances(self, which: str | None = None, *, opened: bool = True) -> Sequence["KeptInstance"]:
        """Return all instances, or those of one business key or id; by default with the business's records open."""
        from towpath.cli.saga_reading import InstanceReader
        from towpath.orchestrator import envelope
        from towpath.orchestrator.instance_status import instances_in
        from towpath.orchestrator.mapping import Messages
        from towpath.stream.broker.kafka import read_records

        topic = own_topic(self.settings, self.catalogue, self.saga, envelope.STATE).name
        opener = Messages(self.codec) if opened else None
        if which is not None:
            return InstanceReader(self.settings).instances(self.saga, which, self.codec, opener)
        return tuple(instances_in(read_records(self.settings, [topic]), self.codec, opener))

    def record(self, name: str, text: str | None, *, like: bool, among: Iterable[str]) -> Any:
        """Return the record that a person wrote. Raises NotFoundError, ConfigurationError, ContractError."""
        from towpath.orchestrator.mapping import Messages

        fitting = [full for full in among if name in (full, full.rpartition(".")[2])]
        if len(fitting) != 1:
            raise NotFoundError(
                f"{name} is none of the records that fit here",
                next_step=f"one of: {', '.join(sorted(full.rpartition('.')[2] for full in among))}",
            )
        value = json_of(text)
        if like and isinstance(value, dict):
            value = {**self._example(fitting[0]), **value}
        # As the machine will know it: the ending of a sub-saga has a form of its own there.
        return Messages(self.codec).read(self.codec.encode(self.codec.from_json(fitting[0], value)))

    def _example(self, full: str) -> dict[str, Any]:
        from towpath.contract.examples import good_examples
        from towpath.contract.files import load_contracts, schema_sets

        shown = good_examples(load_contracts(schema_sets(self.settings)), self.settings).get(full)
        if not shown:
            raise NotFoundError(f"{full} has no good example", next_step="leave --like out, and write the whole record")
        return dict(shown[0])
