"""Speaks to a schema registry with Confluent's API (Apicurio's `/apis/ccompat/v7`, Confluent's own, others alike).

By default there is one subject a record, named by its full name, so that a record has one lineage wherever it travels;
`[registry] subject_strategy` names subjects by topic instead. Schemas are registered without their documentation:
another sentence makes no new version. What others registered may refer to other subjects: it is read made whole.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar
from urllib.parse import quote

import httpx

from towpath.clock import Clock, SystemClock
from towpath.contract.catalogue import Catalogue
from towpath.contract.codec import Codec, UnknownSchema, WriterSchema
from towpath.contract.compatibility import breaks
from towpath.contract.files import Contracts, load_classes, load_contracts, schema_sets
from towpath.contract.schema import Schemas
from towpath.contract.snapshot import Snapshot, schemas_of
from towpath.contract.subjects import SubjectStrategy, full_name, inline, subjects_of
from towpath.errors import ConfigurationError, ContractError, TowpathError, WorldError
from towpath.settings import RegistrySettings, Settings

_MEDIA_TYPE: Final = "application/vnd.schemaregistry.v1+json"
QUESTIONS_AT_ONCE: Final = 4
ABSENT_SECONDS: Final = 60.0
ABSENT_MAX: Final = 10_000
"""Ids remembered as absent: garbage names a new one with each record."""
ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024
_USER_IN_URL: Final = re.compile(r"^(\w+://)?.*@")
"""Up to the last @: a password may hold another one, or what ends an address, and the scheme may be forgotten."""
_DELETED: Final = "?deleted=true"


@dataclass(frozen=True, slots=True)
class Registration:
    """What became of one form of a record's schema: `version` is its number in the files, None for that of today.

    `schema_id` is None where nothing was registered because it was a dry run.
    """

    subject: str
    version: int | None
    schema_id: int | None
    is_new: bool


P = ParamSpec("P")
T = TypeVar("T")


def _answered(
    method: "Callable[Concatenate[RegistryClient, P], T]",
) -> "Callable[Concatenate[RegistryClient, P], T]":
    """Have `method` say that the registry is away where it answers in another form: a proxy, a page for signing in."""

    @wraps(method)
    def asked(client: "RegistryClient", /, *arguments: P.args, **named: P.kwargs) -> T:
        try:
            return method(client, *arguments, **named)
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise client._away(f"an answer in another form ({type(error).__name__}: {error!s:.100})") from error

    return asked


class RegistryClient:
    """A registry. Use it as a context manager, so that its connections are closed."""

    def __init__(self, settings: RegistrySettings, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        password = settings.password.get_secret_value() if settings.password else ""
        headers = {"Accept": f"{_MEDIA_TYPE}, application/json", "Content-Type": _MEDIA_TYPE}
        if settings.token:
            headers["Authorization"] = f"Bearer {settings.token.get_secret_value()}"
        self._strategy = SubjectStrategy(settings.subject_strategy)
        url = settings.url.rstrip("/")
        self._url = _USER_IN_URL.sub(r"\1", url)
        self._timeout_seconds = settings.timeout_seconds
        try:
            self._http = httpx.Client(
                base_url=url,
                auth=(settings.username, password) if settings.username else None,
                timeout=settings.timeout_seconds,
                headers=headers,
            )
        except httpx.InvalidURL as error:
            raise ConfigurationError(
                # What httpx says of it would name a part of a password.
                f"[registry] url = {self._url!r} is no address",
                next_step="correct it in towpath.toml; a user belongs into [registry] username and password",
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    @_answered
    def subjects(self, *, deleted: bool = False) -> tuple[str, ...]:
        """Return all subjects; those that were deleted and can still be read as well, where `deleted` is set."""
        found = self._ask("GET", f"/subjects{_DELETED if deleted else ''}")
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
            raise TypeError("the subjects are a list of texts")
        return tuple(found)

    @_answered
    def add(self, subject: str, avro: Mapping[str, Any]) -> int:
        """Register one schema and return its id; one that is there already keeps its id.

        Raises ContractError where the registry finds it incompatible.
        """
        answer = self._ask("POST", f"/subjects/{quote(subject, safe='')}/versions", {"schema": _text(avro)})
        return _id_of(answer)

    @_answered
    def find(self, subject: str, avro: Mapping[str, Any]) -> int | None:
        """Return the id under which this schema is registered, or None.

        One that others registered with documentation, or with references to other subjects, is found as well.
        """
        answer = self._ask("POST", f"/subjects/{quote(subject, safe='')}", {"schema": _text(avro)}, absent=True)
        if answer is not None:
            return _id_of(answer)
        wanted = _fingerprint(avro)
        for writer in reversed(self.writers(subject, deleted=False)):
            if wanted is not None and _fingerprint(writer.avro) == wanted:
                return writer.schema_id
        return None

    @_answered
    def writers(self, subject: str, *, deleted: bool = True) -> tuple[WriterSchema, ...]:
        """Return every version that is registered under `subject`, each whole in itself.

        What was deleted softly is read as well, unless `deleted` is false: its records still lie in topics.
        """
        flag = _DELETED if deleted else ""
        path = f"/subjects/{quote(subject, safe='')}/versions"
        versions = self._ask("GET", f"{path}{flag}", absent=True)
        if versions is None:
            return ()
        if not isinstance(versions, list):
            raise TypeError("the versions are a list of numbers")
        answers = [self._ask("GET", f"{path}/{version}{flag}") for version in versions]
        return tuple(
            WriterSchema(_id_of(answer), self._whole(answer))
            for answer in answers
            if answer.get("schemaType", "AVRO") == "AVRO"
        )

    @_answered
    def writer(self, schema_id: int) -> WriterSchema | None:
        """Return the schema with this id, or None. For `Codec.learn`, when a record names an id not known yet."""
        answer = self._ask("GET", f"/schemas/ids/{schema_id}", absent=True)
        return None if answer is None else WriterSchema(schema_id, self._whole(answer))

    @_answered
    def compatibility(self, subject: str) -> str:
        """Return the mode that the registry holds `subject` to, its own default included, by Confluent's name of it."""
        answer = self._ask("GET", f"/config/{quote(subject, safe='')}?defaultToGlobal=true", absent=True)
        if answer is None:
            answer = self._ask("GET", "/config")
        return str(answer["compatibilityLevel"])

    @_answered
    def set_compatibility(self, subject: str, mode: str) -> None:
        """Have the registry itself hold `subject` to `mode`, by Confluent's name of it."""
        self._ask("PUT", f"/config/{quote(subject, safe='')}", {"compatibility": mode})

    def register(
        self, contracts: Contracts, catalogue: Catalogue, *, dry_run: bool = False
    ) -> tuple[Registration, ...]:
        """Register every record that travels in a topic: released versions first, then the form of today.

        What is there already keeps its id. With `dry_run` nothing is written.

        Raises ContractError where the registry finds a form incompatible, with what it cannot be read beside.
        """
        done: list[Registration] = []
        for record in catalogue.values():
            for subject in subjects_of(record, catalogue, self._strategy):
                known_here: set[int] = set()
                for version, form in [*contracts.versions(record).items(), (None, contracts.schemas)]:
                    avro = form.avro(record, docs=False)
                    known = self.find(subject, avro)
                    schema_id = known
                    if known is None and not dry_run:
                        schema_id = self._add(subject, record, avro, form, version)
                    if schema_id is None or schema_id not in known_here:
                        done.append(Registration(subject, version, schema_id, is_new=known is None))
                    known_here |= set() if schema_id is None else {schema_id}
                if not dry_run:
                    self.set_compatibility(subject, catalogue.compatibility(record).name)
        return tuple(done)

    def _add(self, subject: str, record: str, avro: Mapping[str, Any], form: Schemas, version: int | None) -> int:
        """Register one form; where the registry refuses it, say why in our words: registries say little."""
        try:
            return self.add(subject, avro)
        except ContractError as error:
            label = "the form of today" if version is None else f"version {version}"
            mode = self.compatibility(subject)
            reasons: list[str] = []
            for number, writer in enumerate(self.writers(subject, deleted=False), 1):
                there = schemas_of(record, writer.avro, f"{subject} version {number}")
                for reader, written, words in (
                    (form, there, f"{label} cannot read what the registry's version {number} wrote"),
                    (there, form, f"the registry's version {number} cannot read what {label} writes"),
                ):
                    reasons += [f"{words}: {item}" for item in breaks(record, reader=reader, writer=written)]
            said = "; ".join(reasons) or error.cause
            raise ContractError(
                f"the registry holds {subject} to {mode} and refuses {label}: {said}",
                kept="what is registered, as it was; no release keeps some of it, or the test would have said so",
                next_step="towpath contracts check --against registry says who breaks; keep what runs as released "
                f"versions of {record}, then change it compatibly",
            ) from error

    def load_codec(self, contracts: Contracts, catalogue: Catalogue, topics: Iterable[str] | None = None) -> Codec:
        """Fetch the ids of every record that travels in `topics` (default: in any), and build the codec.

        It needs no network after. Raises ContractError where a schema of ours is not registered.
        """
        records = catalogue.values() if topics is None else catalogue.values_in(topics)

        def fetch(record: str) -> tuple[int | None, tuple[WriterSchema, ...]]:
            avro = contracts.schemas.avro(record, docs=False)
            subjects = subjects_of(record, catalogue, self._strategy)
            ids = [self.find(subject, avro) for subject in subjects]
            known = {writer.schema_id: writer for subject in subjects for writer in self.writers(subject)}
            return (None if None in ids else ids[0]), tuple(known.values())

        # Side by side, since a registry takes its time for each: three questions a subject.
        with ThreadPoolExecutor(QUESTIONS_AT_ONCE) as pool:
            fetched = dict(zip(records, pool.map(fetch, records), strict=True))
        current: dict[str, int] = {}
        for record, (schema_id, _) in fetched.items():
            if schema_id is None:
                raise ContractError(
                    f"{record}: this form of the schema is not registered", next_step="towpath contracts register"
                )
            current[record] = schema_id
        known = [writer for _, writers in fetched.values() for writer in writers]
        return Codec(contracts.schemas, load_classes(contracts), current, known)

    def snapshot(self, catalogue: Catalogue) -> Snapshot:
        """Return the latest form of each record of `catalogue` that the registry holds; its topics it does not know.

        The engine's own records are left out: they change with the engine, and not with the project.
        """
        records: dict[str, Schemas] = {}
        for record in catalogue.own_values():
            for subject in subjects_of(record, catalogue, self._strategy):
                if writers := self.writers(subject, deleted=False):
                    records[record] = schemas_of(record, writers[-1].avro, f"{subject} in the registry")
        return Snapshot("the registry's latest version", records)

    def _whole(self, answer: Mapping[str, Any]) -> Any:
        """Return the schema of an answer, with everything that it refers to written out."""
        avro = json.loads(answer["schema"])
        named: dict[str, Any] = {}
        self._collect(answer.get("references") or (), named)
        return inline(avro, named) if named else avro

    def _collect(self, references: Iterable[Mapping[str, Any]], named: dict[str, Any]) -> None:
        for reference in references:
            if reference["name"] in named:
                continue
            path = f"/subjects/{quote(reference['subject'], safe='')}/versions/{reference['version']}{_DELETED}"
            answer = self._ask("GET", path)
            named[reference["name"]] = json.loads(answer["schema"])
            self._collect(answer.get("references") or (), named)

    def _ask(self, method: str, path: str, body: Any = None, *, absent: bool = False) -> Any:
        """Return the registry's answer; None where it has no such thing and `absent` allows that."""
        answer, content = self._exchange(method, path, None if body is None else json.dumps(body))
        if answer.is_success:
            if (found := json.loads(content)) is None:
                raise ValueError("null")
            return found
        code, message = _error_of(answer.status_code, content)
        if absent and answer.status_code == httpx.codes.NOT_FOUND and code // 100 == 404:
            return None
        if answer.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
            raise ConfigurationError(
                f"the registry at {self._url} refuses us: {answer.status_code}",
                next_step="set [registry] username and password, or token",
            )
        if answer.status_code in {httpx.codes.CONFLICT, httpx.codes.UNPROCESSABLE_ENTITY}:
            raise ContractError(
                f"the registry refuses {path}: {message}",
                kept="what is registered, as it was",
                next_step="towpath contracts check --against registry says who would break",
            )
        raise self._away(f"{method} {path}: {answer.status_code} {message}")

    def _exchange(self, method: str, path: str, body: str | None) -> tuple[httpx.Response, bytes]:
        """Send a question, read the answer: no longer than the time-out altogether, and no more than a limit.

        httpx's own time-out is for each piece alone.
        """
        end_seconds, content = self._clock.monotonic_seconds() + self._timeout_seconds, bytearray()
        try:
            with self._http.stream(method, path, content=body) as answer:
                for piece in answer.iter_bytes():
                    content += piece
                    if len(content) > ANSWER_BYTES_MAX:
                        raise self._away(f"{method} {path}: an answer of more than {ANSWER_BYTES_MAX} bytes")
                    if self._clock.monotonic_seconds() > end_seconds:
                        raise self._away(f"{method} {path}: no whole answer in {self._timeout_seconds:g} s")
                return answer, bytes(content)
        except httpx.HTTPError as error:
            raise self._away(f"{type(error).__name__}: {error}") from error

    def _away(self, cause: str) -> WorldError:
        return WorldError(
            f"the registry at {self._url} does not answer as it should: {cause}",
            kept="what is registered",
            next_step="towpath status, or check [registry] in towpath.toml",
        )


class SchemaLearned(WorldError):
    """A schema that was not known was asked for, and is known now: what named it can be read."""


class SchemaLearner:
    """Asks the registry for a schema that a record names and a running worker does not know, once for each id."""

    def __init__(self, codec: Codec, settings: RegistrySettings, clock: Clock | None = None) -> None:
        self._codec = codec
        self._clock = clock or SystemClock()
        self._settings = settings
        self._absent_since_seconds: dict[int, float] = {}

    def __call__(self, error: BaseException) -> BaseException:
        """Return what becomes of `error`: a WorldError where the record is to be read again, else the error.

        Again: the schema was learned, or the registry is away. Not again: it has no such schema (asked anew after a
        minute, for another record), or no class here can hold it.
        """
        if not isinstance(error, UnknownSchema):
            return error
        schema_id = error.schema_id
        if self._codec.knows(schema_id):
            return SchemaLearned(f"schema {schema_id} is known now")
        now = self._clock.monotonic_seconds()
        if now - self._absent_since_seconds.get(schema_id, -ABSENT_SECONDS) < ABSENT_SECONDS:
            return error
        try:
            with RegistryClient(self._settings) as client:
                writer = client.writer(schema_id)
            if writer is None:
                raise ContractError(f"the registry has no schema {schema_id}")
            self._codec.learn(writer)
        except WorldError as away:
            return away
        except TowpathError:
            if len(self._absent_since_seconds) >= ABSENT_MAX:
                self._absent_since_seconds.clear()
            self._absent_since_seconds[schema_id] = now
            return error
        return SchemaLearned(f"schema {schema_id} was asked for, and is known now")


def load_codec(settings: Settings, catalogue: Catalogue, topics: Iterable[str] | None = None) -> Codec:
    """Build the codec for what travels in `topics` (default: in any), with the registry's ids."""
    with RegistryClient(settings.registry) as client:
        return client.load_codec(load_contracts(schema_sets(settings)), catalogue, topics)


def _fingerprint(avro: Mapping[str, Any]) -> str | None:
    """Return what two schemas have in common that say the same; None for one that is not read here."""
    try:
        schemas = schemas_of(_name(avro), avro, "the registry")
        return schemas.fingerprint(_name(avro))
    except (TowpathError, AttributeError, KeyError, TypeError):
        return None


def _name(avro: Mapping[str, Any]) -> str:
    return full_name(str(avro["name"]), str(avro.get("namespace") or ""))


def _text(avro: Mapping[str, Any]) -> str:
    return json.dumps(avro, separators=(",", ":"))


def _error_of(status_code: int, content: bytes) -> tuple[int, str]:
    """Return Confluent's error code and message, or what comes nearest to them."""
    try:
        body = json.loads(content)
    except ValueError:
        return status_code, content[:200].decode("utf-8", "replace")
    code, said = (body.get("error_code"), body.get("message")) if isinstance(body, dict) else (None, body)
    return (code if isinstance(code, int) else status_code), str(said or "without a reason")[:500]


def _id_of(answer: Mapping[str, Any]) -> int:
    """Return the id in an answer; no record can name one below 1 (Confluent's wire format)."""
    if (schema_id := int(answer["id"])) < 1:
        raise ValueError(f"{schema_id} is no id of a schema")
    return schema_id
