"""What `towpath contracts test` checks, offline: that files, records, topics and examples agree, and that every
schema keeps the promises that its topics make.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from towpath.contract.avro_readers import CannotJudge, Judge
from towpath.contract.catalogue import Catalogue
from towpath.contract.codec import WIRE_PREFIX_BYTES, Codec, derived_id, wire_prefix
from towpath.contract.datum import encode_datum
from towpath.contract.examples import Example
from towpath.contract.field_rules import Rule, compile_rules, rule_findings
from towpath.contract.files import Contracts
from towpath.contract.finding import Finding, Severity, in_order
from towpath.contract.json_form import read_json
from towpath.contract.parse import misspelt
from towpath.contract.parties import ENGINE_PARTIES, Parties, PartyKind
from towpath.contract.promises import TODAY, Form, compare_forms
from towpath.contract.readers import reader_findings
from towpath.contract.record import Record
from towpath.contract.sample import sample
from towpath.contract.schema import RecordSchema, Schemas
from towpath.contract.write import stale_files
from towpath.errors import ContractError, TowpathError

# Random data beside the examples: enough that each branch of a union and each bound of a number comes up.
_SAMPLES: Final = 25
# A large project is checked in seconds all the same: 2,000 forms get one datum each, 60 forms their 25.
_SAMPLES_ALL: Final = 2_000
_SAMPLES_LEAST: Final = 1
_SEED: Final = 20260101


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
        """Return whether every promise holds; warnings and what was waived break none."""
        return not any(finding.fails for finding in self.findings)


def check_contracts(
    contracts: Contracts,
    catalogue: Catalogue,
    examples: Sequence[Example],
    judges: Sequence[Judge],
    *,
    parties: Parties | None = None,
    outsiders: Iterable[str] = (),
    stale: Iterable[Path] | None = None,
) -> Report:
    """Check everything and return a report of all that is wrong.

    `parties` are those of the project's code, by default whoever the catalogue names; `outsiders` are those of other
    projects, which the catalogue may name as well. `stale` are the generated files that differ, where they are known.
    """
    parties = parties or Parties.of((), catalogue)
    shape = [
        *_check_topics(contracts, catalogue),
        *rule_findings(contracts.schemas),
        *_check_records(stale_files(contracts) if stale is None else stale),
    ]
    findings = [
        *shape,
        *_check_names(catalogue, parties, outsiders),
        *_check_orphans(contracts, catalogue, examples, parties),
    ]
    decodings = 0
    if not shape:  # else the deeper checks would only speak of what is missing
        rules = compile_rules(contracts.schemas)
        forms = sum(1 + len(contracts.versions(name)) for name in catalogue.values())
        samples = max(_SAMPLES_LEAST, min(_SAMPLES, _SAMPLES_ALL // max(forms, 1)))
        check = _Check(contracts, catalogue, parties, judges, Codec.of(contracts), rules=rules, samples=samples)
        check.run(examples)
        findings += [*check.findings, *reader_findings(contracts, parties.reader_schemas)]
        findings += _check_unreleased(contracts, catalogue)
        decodings = check.decodings
    good = [example for example in examples if example.expect is None]
    return Report(
        findings=in_order(findings),
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


def _check_topics(contracts: Contracts, catalogue: Catalogue) -> Iterator[Finding]:
    schemas = contracts.schemas
    own = frozenset(_own(contracts))
    for topic in catalogue.live():
        for value in topic.values:
            if not isinstance(schemas.by_name.get(value), RecordSchema):
                yield Finding(
                    "topic-values",
                    topic.name,
                    f"it promises {value}, which no Avro file defines{misspelt(value, own)}",
                    fix=f"fix schemas/topics/{topic.name}.yaml, or add the Avro file",
                )
            elif value in own and topic.key not in {item.name for item in schemas.record(value).fields}:
                yield Finding(
                    "topic-key",
                    topic.name,
                    f"its key is {topic.key}, but {value} has no such field",
                    fix="name the field that is the key, or move the record to another topic",
                )


def _check_names(catalogue: Catalogue, parties: Parties, outsiders: Iterable[str]) -> Iterator[Finding]:
    """Find producers and consumers whom nobody knows: a misspelt one would be told of nothing that breaks it."""
    code = {party.name for party in parties.by_name.values() if party.kind is not PartyKind.OUTSIDE}
    owners = {topic.owner for topic in catalogue.topics.values()}
    known = code | owners | ENGINE_PARTIES | parties.reader_schemas.keys() | set(outsiders)
    for topic in catalogue.live():
        for name in (*topic.producers, *topic.consumers):
            if name not in known:
                yield Finding(
                    "topic-names",
                    topic.name,
                    f"{name!r} is no service, saga or view{misspelt(name, known)}",
                    fix=f"fix schemas/topics/{topic.name}.yaml, or where it belongs to another project, name it in "
                    "[project] outsiders of towpath.toml",
                )


def _check_orphans(
    contracts: Contracts, catalogue: Catalogue, examples: Sequence[Example], parties: Parties
) -> Iterator[Finding]:
    values = catalogue.values()
    # What a service answers travels as soon as a saga asks it.
    answers = [answer for party in parties.by_name.values() for answer in party.answers]
    replies = {reply for answer in answers for reply in answer.succeeds | answer.fails} & set(contracts.schemas.by_name)
    reached = {name for value in {*values, *replies} for name in contracts.schemas.reachable(value)}
    good = {example.record for example in examples if example.expect is None}
    own = sorted(_own(contracts))
    orphans = _outermost(contracts.schemas, [name for name in own if name not in reached])
    for name in own:
        if name in orphans:
            yield Finding(
                "orphan-schema",
                name,
                "it travels in no topic, neither by itself nor inside another record",
                fix="name it among the values of a topic, or remove its file",
            )
        if name in values and name not in good:
            yield Finding(
                "missing-example",
                name,
                "it has no good example",
                fix="add one in schemas/examples/<service>.json or schemas/examples/<service>/<Record>/good/*.json",
            )
        if name not in values and contracts.versions(name):
            yield Finding(
                "orphan-version",
                name,
                "it has released versions, but is no topic's value by itself",
                fix="name it among the values of its topic again, until that topic has forgotten the last record of "
                "it; then remove its file, its versions and its examples together",
            )
    for example in examples:
        if example.version is not None and example.version not in contracts.versions(example.record):
            yield Finding(
                "orphan-example",
                example.name,
                f"version {example.version} of {example.record} was never released",
                fix="rename the example, or add the version",
            )


def _outermost(schemas: Schemas, names: Iterable[str]) -> set[str]:
    """Return those of `names` that lie inside no other of them: of a circle, the first by name."""
    inside = {name: schemas.reachable(name) for name in names}
    found: set[str] = set()
    told: set[str] = set()
    for name in sorted(inside, key=lambda one: (-len(inside[one]), one)):
        if name not in told:
            found.add(name)
        told.update(inside[name])
    return found


def _check_unreleased(contracts: Contracts, catalogue: Catalogue) -> Iterator[Finding]:
    """Warn of forms that no version file keeps: once they run, nothing here would know what they promised."""
    unreleased = []
    for name in sorted(set(_own(contracts)) & set(catalogue.values())):
        versions = contracts.versions(name)
        today = contracts.schemas.fingerprint(name)
        if not versions or versions[max(versions)].fingerprint(name) != today:
            unreleased.append(name)
    if unreleased:
        several = f"{len(unreleased)} records have" if len(unreleased) > 1 else f"{unreleased[0]} has"
        yield Finding(
            "unreleased",
            unreleased[0] if len(unreleased) == 1 else f"{unreleased[0]} and {len(unreleased) - 1} more",
            f"{several} a form of today that is no released version: once it runs, a change that breaks its readers "
            "would go unnoticed",
            fix="towpath contracts release, before it runs where it matters (towpath contracts register does it too)",
            severity=Severity.WARNING,
        )


def _check_records(stale: Iterable[Path]) -> Iterator[Finding]:
    for path in stale:
        yield Finding(
            "stale-records", path.name, "it is not what the Avro files give", fix="towpath contracts generate"
        )


@dataclass(slots=True)
class _Check:
    """Decodes examples and random data under every version that is promised, and collects what fails."""

    contracts: Contracts
    catalogue: Catalogue
    parties: Parties
    judges: Sequence[Judge]
    codec: Codec
    findings: list[Finding] = field(default_factory=list)
    decodings: int = 0
    rules: Mapping[str, Rule] = field(default_factory=dict)
    samples: int = _SAMPLES
    _avros: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    _told: set[tuple[str, ...]] = field(default_factory=set)

    def run(self, examples: Sequence[Example]) -> None:
        by_record: dict[str, list[Example]] = {name: [] for name in self.catalogue.values()}
        for example in examples:  # a record that only travels inside others may have examples too
            by_record.setdefault(example.record, []).append(example)
        for name, found in by_record.items():
            self._record(name, found)

    def _record(self, name: str, examples: Sequence[Example]) -> None:
        today = Form(TODAY, self.contracts.schemas, None)
        released = [Form(f"version {n}", form, n) for n, form in self.contracts.versions(name).items()]
        compared = compare_forms(name, [*released, today], self.catalogue, self.parties)
        self.findings += compared.findings
        holding = compared.holding
        readers = {form.version: [form] for form in released}
        current = self.contracts.schemas.fingerprint(name)
        # A version that is the form of today is read and written as that.
        other = [form for form in released if form.schemas.fingerprint(name) != current]
        readers[None] = [form for form in other if (TODAY, form.label) in holding]
        forms = {form.version: form for form in (*released, today)}
        for example in examples:
            form = forms.get(example.version)
            if example.expect is not None:
                self._bad(example, example.expect)
            elif form is not None and (form.label, TODAY) in holding:
                self._good(example, form, readers[example.version])
        chance = Random(f"{_SEED} {name}")  # noqa: S311 - test data
        for form in (*other, today):
            for _ in range(self.samples if (form.label, TODAY) in holding else 0):
                body = encode_datum(form.schemas, name, sample(form.schemas, name, chance))
                written = _Written(f"random data of {name} ({form.label})", name, body, form, True)
                self._decode(written, readers[form.version])

    def _good(self, example: Example, form: Form, readers: Sequence[Form]) -> None:
        reading = read_json(form.schemas, example.record, example.content)
        if reading.problems:
            problem = f"it is refused: {'; '.join(reading.problems)}"
            self._find("good-example", example.name, problem, fix="fix the example")
            return
        body = encode_datum(form.schemas, example.record, reading.datum)
        self._decode(_Written(example.name, example.record, body, form), readers)

    def _bad(self, example: Example, expect: str) -> None:
        problems = read_json(self.contracts.schemas, example.record, example.content).problems
        if not problems:
            fix = "tighten the schema, or move the example to good/"
            self._find("bad-example", example.name, "it is accepted", fix=fix)
        elif not any(expect in problem for problem in problems):
            problem = f"it is refused with {'; '.join(problems)!r}, not with {expect!r}"
            self._find("bad-example", example.name, problem, fix="say in `expect` with which words it is refused")

    def _decode(self, written: "_Written", readers: Sequence[Form]) -> None:
        """Have the codec read it, and each judge under the form of today and under each of `readers`."""
        name, form = written.name, written.form
        try:
            record = self.codec.decode(wire_prefix(derived_id(form.schemas, name)) + written.body)
            ruled = self.rules.get(name)
            problem = ruled(record) if ruled is not None and form.version is None else None
            if problem and not written.by_chance:
                self._find("good-example", written.subject, f"it breaks a rule: {problem}", fix="fix the example")
            if form.version is None and not problem and not self._same(record, written):
                raise ContractError("decoded and encoded again it is another record")
        except TowpathError as error:
            self._find("decode", written.subject, error.cause, fix="this is a defect of Towpath: report it")
        self.decodings += 1
        for reader in (Form(TODAY, self.contracts.schemas, None), *readers):
            self._judge(written, reader)

    def _same(self, record: Record, written: "_Written") -> bool:
        """Return whether a record of today, encoded anew, means what was written (a map's order means nothing)."""
        avro = self._avro(written.form, written.name)
        bodies = (written.body, self.codec.encode(record)[WIRE_PREFIX_BYTES:])
        first, second = (self.judges[0].read(body, writer=avro, reader=avro) for body in bodies)
        return bool(first == second)

    def _avro(self, form: Form, name: str) -> dict[str, Any]:
        """Return one form of a record as JSON, built once: each datum asks for it several times."""
        found = self._avros.get((name, form.label))
        if found is None:
            found = self._avros[name, form.label] = form.schemas.avro(name, docs=False)
        return found

    def _judge(self, written: "_Written", reader: Form) -> None:
        writer_avro = self._avro(written.form, written.name)
        reader_avro = self._avro(reader, written.name)
        seen: list[tuple[str, Any]] = []
        for judge in self.judges:
            try:
                seen.append((judge.name, judge.read(written.body, writer=writer_avro, reader=reader_avro)))
                self.decodings += 1
            except CannotJudge:
                continue
            except Exception as error:  # a judge may raise anything
                problem = f"{judge.name} cannot read {written.form.label} as {reader.label}"
                said = f"{type(error).__name__}: {error}"
                self._heard(written, problem, said, type(error).__name__, "avoid what this library does not read")
        for other, datum in seen[1:]:
            if datum != seen[0][1]:
                problem = f"{seen[0][0]} and {other} read different values from {written.form.label} as {reader.label}"
                self._heard(written, problem, "they differ", "", "avoid what the two libraries see differently")

    def _heard(self, written: "_Written", problem: str, said: str, kind: str, fix: str) -> None:
        """Report what a judge says once, however many records show it."""
        if (cause := (written.name, problem, kind)) not in self._told:
            self._told.add(cause)
            fix += ", or where the library is at fault: towpath contracts waive --help"
            self._find("judge", written.name, f"{problem}: {said} (first seen in {written.subject})", fix=fix)

    def _find(self, rule: str, subject: str, problem: str, *, fix: str) -> None:
        self.findings.append(Finding(rule, subject, problem, fix=fix))


@dataclass(frozen=True, slots=True)
class _Written:
    """One record as bytes, and the form under which it was written."""

    subject: str
    name: str
    body: bytes
    form: Form
    by_chance: bool = False
