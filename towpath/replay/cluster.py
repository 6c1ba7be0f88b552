"""Another cluster, with a registry of its own: how it is reached, and how values are made readable there.

The one rule: a value keeps every byte but the id of its schema, which is another registry's number for the same schema.
What lies inside the engine's records (a history's replies) has such an id as well.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from towpath.contract.catalogue import Catalogue, is_engines
from towpath.contract.codec import WIRE_PREFIX_BYTES, Codec, schema_id_of, wire_prefix
from towpath.contract.registry import RegistryClient
from towpath.contract.subjects import SubjectStrategy, subjects_of
from towpath.errors import ConfigurationError, ContractError, NotFoundError
from towpath.replay.nested import with_payloads
from towpath.settings import KafkaSettings, RegistrySettings

LEAVE_OUT = "plan it anew with --type TYPE beside what was asked for: only records of the types that are named go"


@dataclass(frozen=True, slots=True)
class Cluster:
    """How another cluster is reached. `registry` is None where it shares the project's own."""

    kafka: KafkaSettings
    registry: RegistrySettings | None


def load_cluster(path: Path) -> Cluster:
    """Return what a file says of another cluster: the sections `[kafka]` and `[registry]`, as in towpath.toml.

    Raises NotFoundError where it cannot be read, ConfigurationError where it says anything else.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        unknown = sorted(content.keys() - {"kafka", "registry"})
        if unknown or "bootstrap_servers" not in content.get("kafka", {}):
            raise ConfigurationError(
                f"{path}: " + (f"unknown sections {unknown}" if unknown else "it names no cluster"),
                next_step="write [kafka] bootstrap_servers and, where it has one of its own, [registry] url",
            )
        registry = content.get("registry")
        return Cluster(KafkaSettings(**content["kafka"]), None if registry is None else RegistrySettings(**registry))
    except OSError as error:
        raise NotFoundError(f"{path} cannot be read: {error}", next_step="name a file with [kafka] in it") from error
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise ConfigurationError(
            f"{path}: {error}", next_step="write [kafka] and [registry] as in towpath.toml"
        ) from error


class SchemaTranslation:
    """Gives values the ids under which another registry knows their schemas; what it lacks is registered there."""

    def __init__(
        self,
        codec: Codec,
        catalogue: Catalogue,
        here: RegistryClient,
        there: RegistryClient,
        strategy: SubjectStrategy,
    ) -> None:
        self._codec = codec
        self._catalogue = catalogue
        self._here = here
        self._there = there
        self._strategy = strategy
        self._known: dict[int, tuple[int, bool]] = {}

    def __call__(self, value: bytes) -> bytes:
        """Return `value` as the other registry's readers read it.

        Raises ContractError for a schema that this registry does not know or the other one refuses.
        """
        if len(value) < WIRE_PREFIX_BYTES or value[0]:
            return value
        schema_id, is_engines = self._translated(schema_id_of(value))
        if is_engines:
            record = self._codec.decode(value)
            changed = with_payloads(record, self)
            if changed is not record:
                value = self._codec.encode(changed)
                schema_id, _ = self._translated(schema_id_of(value))
        return wire_prefix(schema_id) + value[WIRE_PREFIX_BYTES:]

    def _translated(self, schema_id: int) -> tuple[int, bool]:
        if schema_id not in self._known:
            writer = self._here.writer(schema_id)
            if writer is None:
                raise ContractError(
                    f"a record names schema {schema_id}, which the project's registry does not know",
                    kept="what was sent before; nothing more was sent",
                    next_step=LEAVE_OUT,
                )
            ids = []
            for subject in subjects_of(writer.name, self._catalogue, self._strategy):
                found = self._there.find(subject, writer.avro)
                ids.append(self._there.add(subject, writer.avro) if found is None else found)
            if not ids:
                raise ContractError(
                    f"no topic of the catalogue carries {writer.name}, so its schema has no subject there",
                    kept="what was sent before; nothing more was sent",
                    next_step=f"name it among the values of a topic in schemas/topics; or {LEAVE_OUT}",
                )
            self._known[schema_id] = ids[0], is_engines(writer.name)
        return self._known[schema_id]
