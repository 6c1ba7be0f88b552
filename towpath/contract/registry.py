"""Speaks to a schema registry with Confluent's API (Apicurio's `/apis/ccompat/v7`, Confluent's own, others alike).

Subjects follow RecordNameStrategy: one subject a record, named by its full name, so that a record has one lineage
wherever it travels. Schemas are registered without their documentation: mending a sentence makes no new version.
"""

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

import httpx

from towpath.contract.catalogue import Catalogue
from towpath.contract.codec import Codec, WriterSchema
from towpath.contract.files import Contracts, load_classes, load_contracts, schema_sets
from towpath.errors import ConfigurationError, ContractError, WorldError
from towpath.settings import RegistrySettings, Settings

_MEDIA_TYPE: Final = "application/vnd.schemaregistry.v1+json"
QUESTIONS_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class Registration:
    """What became of one form of a record's schema: `version` is its number in the files, None for that of today.

    `schema_id` is None where nothing was registered because it was a dry run.
    """

    subject: str
    version: int | None
    schema_id: int | None
    is_new: bool


class RegistryClient:
    """A registry. Use it as a context manager, so that its connections are closed."""

    def __init__(self, settings: RegistrySettings) -> None:
        password = settings.password.get_secret_value() if settings.password else ""
        self._url = settings.url.rstrip("/")
        self._http = httpx.Client(
            base_url=self._url,
            auth=(settings.username, password) if settings.username else None,
            timeout=settings.timeout_seconds,
            headers={"Accept": f"{_MEDIA_TYPE}, application/json", "Content-Type": _MEDIA_TYPE},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def subjects(self) -> tuple[str, ...]:
        """Return all subjects."""
        return tuple(self._ask("GET", "/subjects"))

    def add(self, subject: str, avro: Mapping[str, Any]) -> int:
        """Register one schema and return its id; one that is there already keeps its id.

        Raises ContractError where the registry finds it incompatible.
        """
        answer = self._ask("POST", f"/subjects/{subject}/versions", {"schema": _text(avro)})
        return int(answer["id"])

    def find(self, subject: str, avro: Mapping[str, Any]) -> int | None:
        """Return the id under which exactly this schema is registered, or None."""
        answer = self._ask("POST", f"/subjects/{subject}", {"schema": _text(avro)}, absent=True)
        return None if answer is None else int(answer["id"])

    def writers(self, subject: str) -> tuple[WriterSchema, ...]:
        """Return every version that is registered under `subject`."""
        versions = self._ask("GET", f"/subjects/{subject}/versions", absent=True) or ()
        answers = [self._ask("GET", f"/subjects/{subject}/versions/{version}") for version in versions]
        return tuple(WriterSchema(int(answer["id"]), json.loads(answer["schema"])) for answer in answers)

    def writer(self, schema_id: int) -> WriterSchema | None:
        """Return the schema with this id, or None. For `Codec.learn`, when a record names an id not known yet."""
        answer = self._ask("GET", f"/schemas/ids/{schema_id}", absent=True)
        return None if answer is None else WriterSchema(schema_id, json.loads(answer["schema"]))

    def set_compatibility(self, subject: str, mode: str) -> None:
        """Have the registry itself hold `subject` to `mode`, by Confluent's name of it."""
        self._ask("PUT", f"/config/{subject}", {"compatibility": mode})

    def register(
        self, contracts: Contracts, catalogue: Catalogue, *, dry_run: bool = False
    ) -> tuple[Registration, ...]:
        """Register every record that travels in a topic: released versions first, then the form of today.

        What is there already keeps its id. With `dry_run` nothing is written.
        """
        done: list[Registration] = []
        for subject in catalogue.values():
            forms = [*contracts.versions(subject).items(), (None, contracts.schemas)]
            for version, form in forms:
                avro = form.avro(subject, docs=False)
                known = self.find(subject, avro)
                schema_id = known if known is not None or dry_run else self.add(subject, avro)
                if not any(other.schema_id == schema_id and schema_id is not None for other in done):
                    done.append(Registration(subject, version, schema_id, is_new=known is None))
            if not dry_run:
                self.set_compatibility(subject, catalogue.compatibility(subject).name)
        return tuple(done)

    def load_codec(self, contracts: Contracts, catalogue: Catalogue, topics: Iterable[str] | None = None) -> Codec:
        """Fetch the ids of every record that travels in `topics` (default: in any), and build the codec.

        It needs no network after. Raises ContractError where a schema of ours is not registered.
        """
        subjects = catalogue.values() if topics is None else catalogue.values_in(topics)

        def fetch(subject: str) -> tuple[int | None, tuple[WriterSchema, ...]]:
            return self.find(subject, contracts.schemas.avro(subject, docs=False)), self.writers(subject)

        # Side by side, since a registry takes its time for each: three questions a subject.
        with ThreadPoolExecutor(QUESTIONS_AT_ONCE) as pool:
            fetched = dict(zip(subjects, pool.map(fetch, subjects), strict=True))
        current: dict[str, int] = {}
        for subject, (schema_id, _) in fetched.items():
            if schema_id is None:
                raise ContractError(
                    f"{subject}: this form of the schema is not registered", next_step="towpath contracts register"
                )
            current[subject] = schema_id
        known = [writer for _, writers in fetched.values() for writer in writers]
        return Codec(contracts.schemas, load_classes(contracts), current, known)

    def _ask(self, method: str, path: str, body: Any = None, *, absent: bool = False) -> Any:
        """Return the registry's answer; None where it has no such thing and `absent` allows that."""
        try:
            answer = self._http.request(method, path, content=None if body is None else json.dumps(body))
        except httpx.HTTPError as error:
            raise self._away(f"{type(error).__name__}: {error}") from error
        if answer.is_success:
            return answer.json()
        code, message = _error_of(answer)
        if absent and answer.status_code == httpx.codes.NOT_FOUND and code // 100 == 404:
            return None
        if answer.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
            raise ConfigurationError(
                f"the registry at {self._url} refuses us: {answer.status_code}",
                next_step="set [registry] username and password",
            )
        if answer.status_code in {httpx.codes.CONFLICT, httpx.codes.UNPROCESSABLE_ENTITY}:
            raise ContractError(
                f"the registry refuses {path}: {message}", next_step="towpath contracts test says who would break"
            )
        raise self._away(f"{method} {path}: {answer.status_code} {message}")

    def _away(self, cause: str) -> WorldError:
        return WorldError(
            f"the registry at {self._url} does not answer as it should: {cause}",
            kept="what is registered",
            next_step="towpath status, or check [registry] in towpath.toml",
        )


def load_codec(settings: Settings, catalogue: Catalogue, topics: Iterable[str] | None = None) -> Codec:
    """Build the codec for what travels in `topics` (default: in any), with the registry's ids."""
    with RegistryClient(settings.registry) as client:
        return client.load_codec(load_contracts(schema_sets(settings)), catalogue, topics)


def _text(avro: Mapping[str, Any]) -> str:
    return json.dumps(avro, separators=(",", ":"))


def _error_of(answer: httpx.Response) -> tuple[int, str]:
    """Return Confluent's error code and message, or what comes nearest to them."""
    try:
        body = answer.json()
    except ValueError:
        return answer.status_code, answer.text[:200]
    return int(body.get("error_code", answer.status_code)), str(body.get("message", ""))[:500]
