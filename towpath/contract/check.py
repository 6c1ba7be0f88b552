"""What `towpath contracts test` checks, offline: that files, records, topics and examples agree, and that every
schema keeps the promises that its topics make.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from towpath.contract.avro_readers import CannotJudge, Judge, write_body
from towpath.contract.catalogue import Catalogue, Topic, TopicKind
from towpath.contract.codec import WIRE_PREFIX_BYTES, Codec, derived_id, wire_prefix
from towpath.contract.compatibility import Break, breaks
from towpath.contract.examples import Example
from towpath.contract.files import Contracts
from towpath.contract.json_form import read_json
from towpath.contract.parse import misspelt
from towpath.contract.record import Record
from towpath.contract.sample import sample
from towpath.contract.schema import RecordSchema, Schemas
from towpath.contract.write import stale_files
from towpath.errors import ContractError, TowpathError

# Random data beside the examples: enough that each branch of a union and each bound of a number comes up.
_SAMPLES: Final = 25
_SEED: Final = 20260101
# A consumer may be a system that this project knows nothing of, so only what is all but equal counts as misspelt:
# one letter of a name of eight.
_LIKENESS: Final = 0.87


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken promise. `breaks` names who is hit; `mend` says what would help."""

    rule: str
    subject: str
    problem: str
    breaks: tuple[str, ...] = ()
    mend: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What was checked, and what was found wrong. `decodings` counts records read by a codec or a judge."""

    findings: tuple[Finding, ...]
    records: int
    versions: int
    topics: int
    good_examples: int
    bad_examples: int
    decodings: int
    judges: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Return whether every promise holds."""
        return not self.findings


@dataclass(frozen=True, slots=True)
class _Form:
    """One form of a record: a released version, or that of today."""

    label: str
    schemas: Schemas
    version: int | None


def check_contracts(
    contracts: Contracts,
    catalogue: Catalogue,
    examples: Sequence[Example],
    judges: Sequence[Judge],
    *,
    views: Iterable[str] = (),
) -> Report:
    """Check everything and return a report of all that is wrong. `views` are the names of the project's views."""
    shape = [*_check_topics(contracts, catalogue, frozenset(views)), *_check_records(contracts)]
    findings = [*shape, *_check_orphans(contracts, catalogue, examples)]
    decodings = 0
    if not shape:  # else the deeper checks would only speak of what is missing
        check = _Check(contracts, catalogue, judges, Codec.of(contracts))
        check.run(examples)
        findings += check.findings
        decodings = check.decodings
    good = [example for example in examples if example.expect is None]
    return Report(
        findings=tuple(findings),
        records=sum(1 for _ in contracts.schemas.records()),
        versions=sum(len(versions) for loaded in contracts.sets for versions in loaded.versions.values()),
        topics=len(catalogue.topics),
        good_examples=len(good),
        bad_examples=len(examples) - len(good),
        decodings=decodings,
        judges=tuple(judge.name for judge in judges),
    )


def _own(contracts: Contracts) -> Iterator[str]:
    """Yield the full names of the project's schemas, the engine's aside."""
    for loaded in contracts.sets:
        if loaded.source.is_package:
            yield from loaded.services


def _check_topics(contracts: Contracts, catalogue: Catalogue, views: frozenset[str]) -> Iterator[Finding]:
    schemas = contracts.schemas
    own = frozenset(_own(contracts))
    known = {topic.owner for topic in catalogue.topics.values()} | views
    for topic in catalogue.live():
        for value in topic.values:
            if not isinstance(schemas.by_name.get(value), RecordSchema):
                yield Finding(
                    "topic-values",
                    topic.name,
                    f"it promises {value}, which no Avro file defines{misspelt(value, own)}",
                    mend=f"mend schemas/topics/{topic.name}.yaml, or add the Avro file",
                )
            elif value in own and topic.key not in {item.name for item in schemas.record(value).fields}:
                yield Finding(
                    "topic-key",
                    topic.name,
                    f"its key is {topic.key}, but {value} has no such field",
                    mend="name the field that is the key, or move the record to another topic",
                )
        for name in (*topic.producers, *topic.consumers):
            if name not in known and (meant := misspelt(name, known, likeness=_LIKENESS)):
                yield Finding(
                    "topic-names",
                    topic.name,
                    f"{name!r} is no service, saga or view{meant}",
                    mend=f"mend schemas/topics/{topic.name}.yaml",
                )


def _check_orphans(contracts: Contracts, catalogue: Catalogue, examples: Sequence[Example]) -> Iterator[Finding]:
    values = catalogue.values()
    reached = {name for value in values for name in contracts.schemas.reachable(value)}
    good = {example.record for example in examples if example.expect is None}
    for name in sorted(_own(contracts)):
        if name not in reached:
            yield Finding(
                "orphan-schema",
                name,
                "it travels in no topic, neither by itself nor inside another record",
                mend="name it among the values of a topic, or remove its file",
            )
        if name in values and name not in good:
            yield Finding(
                "missing-example",
                name,
                "it has no good example",
                mend="add schemas/examples/<service>/<Record>/good/*.json",
            )
        if name not in values and contracts.versions(name):
            yield Finding(
                "orphan-version",
                name,
                "it has released versions, but is no topic's value by itself",
                mend="remove the versions: those of the records that contain it hold its old forms",
            )
    for example in examples:
        if example.version is not None and example.version not in contracts.versions(example.record):
            yield Finding(
                "orphan-example",
                example.name,
                f"version {example.version} of {example.record} was never released",
                mend="rename the example, or add the version",
            )


def _check_records(contracts: Contracts) -> Iterator[Finding]:
    for path in stale_files(contracts):
        yield Finding(
            "stale-records", path.name, "it is not what the Avro files give", mend="towpath contracts generate"
        )


@dataclass(slots=True)
class _Check:
    """Decodes examples and random data under every version that is promised, and collects what fails."""

    contracts: Contracts
    catalogue: Catalogue
    judges: Sequence[Judge]
    codec: Codec
    findings: list[Finding] = field(default_factory=list)
    decodings: int = 0

    def run(self, examples: Sequence[Example]) -> None:
        by_record: dict[str, list[Example]] = {name: [] for name in self.catalogue.values()}
        for example in examples:  # a record that only travels inside others may have examples too
            by_record.setdefault(example.record, []).append(example)
        for name, found in by_record.items():
            self._record(name, found)

    def _record(self, name: str, examples: Sequence[Example]) -> None:
        today = _Form("the form of today", self.contracts.schemas, None)
        released = [_Form(f"version {n}", form, n) for n, form in self.contracts.versions(name).items()]
        holding = self._compatibility(name, [*released, today])
        readers = {form.version: [form] for form in released}
        readers[None] = [form for form in released if (None, form.version) in holding]
        forms = {form.version: form for form in (*released, today)}
        for example in examples:
            if example.expect is not None:
                self._bad(example, example.expect)
            elif (example.version, None) in holding:
                self._good(example, forms[example.version], readers[example.version])
        chance = Random(f"{_SEED} {name}")  # noqa: S311 - test data
        for form in forms.values():
            for _ in range(_SAMPLES if (form.version, None) in holding else 0):
                body = write_body(form.schemas.avro(name, docs=False), sample(form.schemas, name, chance))
                written = _Written(f"random data of {name} ({form.label})", name, body, form)
                self._decode(written, readers[form.version])

    def _compatibility(self, name: str, forms: Sequence[_Form]) -> set[tuple[int | None, int | None]]:
        """Check each form against those before it; return the (writer, reader) pairs that are promised and hold."""
        promise = self.catalogue.compatibility(name)
        holding: set[tuple[int | None, int | None]] = {(None, None)}
        for place, new in enumerate(forms):
            earlier = forms[:place] if promise.transitive else forms[max(place - 1, 0) : place]
            for old in earlier:
                for promised, writer, reader in ((promise.backward, old, new), (promise.forward, new, old)):
                    found = breaks(name, reader=reader.schemas, writer=writer.schemas) if promised else ()
                    if found:
                        self.findings.append(self._broken(name, found, writer=writer, reader=reader, new=new))
                    elif promised:
                        holding.add((writer.version, reader.version))
        return holding

    def _broken(self, name: str, found: Sequence[Break], *, writer: _Form, reader: _Form, new: _Form) -> Finding:
        backward = reader is new
        places = "; ".join(str(item) for item in found)
        topics = [
            topic
            for topic in self.catalogue.carrying(name)
            if (topic.compatibility.backward if backward else topic.compatibility.forward)
        ]
        return Finding(
            "compatibility",
            name,
            f"readers of {reader.label} cannot read what {writer.label} {'wrote' if backward else 'writes'}: {places}",
            breaks=tuple(_who(topic, backward=backward) for topic in topics),
            mend=" or ".join(dict.fromkeys(item.mend for item in found)),
        )

    def _good(self, example: Example, form: _Form, readers: Sequence[_Form]) -> None:
        reading = read_json(form.schemas, example.record, example.content)
        if reading.problems:
            problem = f"it is refused: {'; '.join(reading.problems)}"
            self._find("good-example", example.name, problem, mend="mend the example")
            return
        body = write_body(form.schemas.avro(example.record, docs=False), reading.datum)
        self._decode(_Written(example.name, example.record, body, form), readers)

    def _bad(self, example: Example, expect: str) -> None:
        problems = read_json(self.contracts.schemas, example.record, example.content).problems
        if not problems:
            mend = "tighten the schema, or move the example to good/"
            self._find("bad-example", example.name, "it is accepted", mend=mend)
        elif not any(expect in problem for problem in problems):
            problem = f"it is refused with {'; '.join(problems)!r}, not with {expect!r}"
            self._find("bad-example", example.name, problem, mend="say in `expect` with which words it is refused")

    def _decode(self, written: "_Written", readers: Sequence[_Form]) -> None:
        """Have the codec read it, and each judge under the form of today and under each of `readers`."""
        name, form = written.name, written.form
        try:
            record = self.codec.decode(wire_prefix(derived_id(form.schemas, name)) + written.body)
            if form.version is None and not self._same(record, written):
                raise ContractError("decoded and encoded again it is another record")
        except TowpathError as error:
            self._find("decode", written.subject, error.cause, mend="this is a defect of Towpath: report it")
        self.decodings += 1
        for reader in (_Form("the form of today", self.contracts.schemas, None), *readers):
            self._judge(written, reader)

    def _same(self, record: Record, written: "_Written") -> bool:
        """Return whether a record of today, encoded anew, means what was written (a map's order means nothing)."""
        avro = written.form.schemas.avro(written.name, docs=False)
        bodies = (written.body, self.codec.encode(record)[WIRE_PREFIX_BYTES:])
        first, second = (self.judges[0].read(body, writer=avro, reader=avro) for body in bodies)
        return bool(first == second)

    def _judge(self, written: "_Written", reader: _Form) -> None:
        writer_avro = written.form.schemas.avro(written.name, docs=False)
        reader_avro = reader.schemas.avro(written.name, docs=False)
        seen: list[tuple[str, Any]] = []
        for judge in self.judges:
            try:
                seen.append((judge.name, judge.read(written.body, writer=writer_avro, reader=reader_avro)))
                self.decodings += 1
            except CannotJudge:
                continue
            except Exception as error:  # a judge may raise anything
                problem = (
                    f"{judge.name} cannot read {written.form.label} as {reader.label}: {type(error).__name__}: {error}"
                )
                self._find("judge", written.subject, problem, mend="avoid what this library does not read")
        for other, datum in seen[1:]:
            if datum != seen[0][1]:
                problem = f"{seen[0][0]} and {other} read different values from {written.form.label} as {reader.label}"
                self._find("judge", written.subject, problem, mend="avoid what the two libraries see differently")

    def _find(self, rule: str, subject: str, problem: str, *, mend: str) -> None:
        self.findings.append(Finding(rule, subject, problem, mend=mend))


@dataclass(frozen=True, slots=True)
class _Written:
    """One record as bytes, and the form under which it was written."""

    subject: str
    name: str
    body: bytes
    form: _Form


def _who(topic: Topic, *, backward: bool) -> str:
    """Say who is hit when a promise of `topic` is broken."""
    consumers = ", ".join(topic.consumers) or ("its own store" if topic.kind is TopicKind.STATE else "whoever reads it")
    if backward:
        kept = "for ever" if topic.retention_days is None else f"for {topic.retention_days:g} days"
        return f"{consumers} (reading {topic.name}, which keeps such records {kept})"
    return f"{consumers} (reading {topic.name}, as soon as {', '.join(topic.producers)} is deployed)"
