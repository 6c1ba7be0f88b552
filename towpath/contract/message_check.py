"""Holds one message to the whole catalogue: its topic, its key, its rules, and every reader that will meet it.

For a service's own tests: the fixture `towpath_contracts` (towpath.testing.plugin) loads the project once.
"""

from dataclasses import dataclass

from towpath.contract.avro_readers import FastavroReader
from towpath.contract.catalogue import Catalogue
from towpath.contract.codec import WIRE_PREFIX_BYTES, Codec
from towpath.contract.files import Contracts
from towpath.contract.parties import Parties
from towpath.contract.promises import promise_of
from towpath.contract.python_names import attributes
from towpath.contract.record import Record
from towpath.errors import TowpathError

_READER = FastavroReader()


@dataclass(frozen=True, slots=True)
class MessageCheck:
    """A project's contracts, to hold messages to."""

    contracts: Contracts
    catalogue: Catalogue
    parties: Parties
    codec: Codec

    def accepts(self, record: Record, *, topic: str, key: str | None = None) -> None:
        """Pass where `record` may be written to `topic`, under `key` if that is given, and all its readers can read it.

        Raises AssertionError that says what is wrong and who would break.
        """
        problems = self.problems(record, topic=topic, key=key)
        assert not problems, "\n".join([f"{record.SCHEMA_NAME} to {topic}:", *problems])

    def problems(self, record: Record, *, topic: str, key: str | None = None) -> list[str]:
        """Return what is wrong with writing `record` to `topic`, in words."""
        name = record.SCHEMA_NAME
        try:
            declared = self.catalogue.topic(topic)
            if name not in declared.values:
                return [f"it is not among the values in schemas/topics/{topic}.yaml"]
            body = self.codec.encode(record)[WIRE_PREFIX_BYTES:]
        except TowpathError as error:
            return [error.cause]
        found: list[str] = []
        attribute = attributes(self.contracts.schemas.record(name)).get(declared.key)
        if key is not None and attribute is not None and (own := str(getattr(record, attribute))) != key:
            found.append(f"its key is {key}, and its {declared.key} is {own}")
        return [*found, *self._unread(name, topic, body)]

    def _unread(self, name: str, topic: str, body: bytes) -> list[str]:
        """Return which readers cannot read `body`: consumers with schemas of their own, and versions still promised."""
        forms = {
            f"{party.name} (schemas/readers/{party.name})": self.parties.reader_schemas[party.name][name]
            for party, use in self.parties.readers(name)
            if use.topic == topic and name in self.parties.reader_schemas.get(party.name, {})
        }
        if promise_of(name, self.catalogue, self.parties).forward:
            forms |= {f"version {number}": form for number, form in self.contracts.versions(name).items()}
        written = self.contracts.schemas.avro(name, docs=False)
        found: list[str] = []
        for who, form in forms.items():
            try:
                _READER.read(body, writer=written, reader=form.avro(name, docs=False))
            except Exception as error:  # a library raises what it likes
                found.append(f"{who} cannot read it: {type(error).__name__}: {error}")
        return found
