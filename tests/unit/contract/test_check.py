"""`towpath contracts test` finds each broken promise, and says who breaks and how to fix it."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.unit.contract.workshop import Workshop, field, record
from towpath.contract.avro_readers import FastavroReader, judges
from towpath.contract.catalogue import Catalogue
from towpath.contract.check import Report, check_contracts
from towpath.contract.examples import load_examples
from towpath.contract.finding import Finding
from towpath.contract.parties import Parties, Party, PartyKind, Use
from towpath.contract.readers import load_reader_schemas
from towpath.errors import ContractError

ORDER = record("OrderPlaced", field("order_id"), field("total", "int"))
UNITS = ("millis", "micros", "nanos")
TOPIC = """\
topic: order.events
kind: events
owner: order
key: order_id
partitions: 4
retention_days: 30
values: [shop.order.OrderPlaced]
producers: [order]
consumers: [place_order, order_status]
"""


class Project(Workshop):
    """A project with topics and examples, in which nothing is wrong until a test breaks it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.topic(TOPIC)
        self.put(ORDER)
        self.example("good/usual", {"order_id": "o-1", "total": 5})

    def topic(self, text: str, name: str = "order.events") -> None:
        """Write one topic."""
        path = self.folder / "topics" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def example(self, name: str, content: Any, *, owner: str = "order/OrderPlaced") -> None:
        """Write one example."""
        path = self.folder / "examples" / owner / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")

    def topic_readers(self, consumer: str, avro: Mapping[str, Any]) -> None:
        """Write what a consumer of another project says that it reads."""
        path = self.folder / "readers" / consumer / f"{avro['name']}.avsc"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(avro), encoding="utf-8")

    def check(self, *, generate: bool = True) -> Report:
        """Run the whole check."""
        contracts = self.generate() if generate else self.contracts()
        examples = load_examples(contracts, self.folder / "examples")
        catalogue = Catalogue.read(self.folder / "topics")
        known = [Party("order_status", PartyKind.VIEW, (Use("shop.order.OrderPlaced", "order.events", "folded"),))]
        known += [Party("place_order", PartyKind.SAGA, (Use("shop.order.OrderPlaced", "order.events", "its start"),))]
        parties = Parties.of(known, catalogue, load_reader_schemas(self.folder / "readers"))
        return check_contracts(contracts, catalogue, examples, judges(), parties=parties)

    def problems(self) -> list[Finding]:
        """Run the check, and return what fails it."""
        return [finding for finding in self.check().findings if finding.fails]


@pytest.fixture
def project(workshop: Workshop) -> Project:
    """Return a project in which every promise holds."""
    found = Project(workshop.folder)
    workshop.package = found.package  # so that what it imports is forgotten afterwards
    return found


def test_a_sound_project_has_no_findings(project: Project) -> None:
    """The example and the random data were read by the codec and by both judges."""
    report = project.check()
    assert [finding.rule for finding in report.findings] == ["unreleased"]  # a warning
    assert report.ok
    assert report.decodings > 50
    assert [name.split()[0] for name in report.judges] == ["fastavro", "avro"]


def _orphan_schema(project: Project) -> None:
    project.put(record("Forgotten", field("x")))


def _unknown_value(project: Project) -> None:
    project.topic(TOPIC.replace("OrderPlaced", "OrderPlacd"))


def _key_is_no_field(project: Project) -> None:
    project.topic(TOPIC.replace("key: order_id", "key: sku"))


def _misspelt_consumer(project: Project) -> None:
    project.topic(TOPIC.replace("order_status", "order_statis"))


def _no_example(project: Project) -> None:
    (project.folder / "examples/order/OrderPlaced/good/usual.json").unlink()


def _bad_example_accepted(project: Project) -> None:
    project.example("bad/fine", {"expect": "missing", "record": {"order_id": "o", "total": 1}})


def _bad_example_with_other_words(project: Project) -> None:
    project.example("bad/odd", {"expect": "total: missing", "record": {"order_id": "o", "total": "1"}})


def _good_example_refused(project: Project) -> None:
    project.example("good/usual", {"order_id": "o-1"})


def _example_of_an_unreleased_version(project: Project) -> None:
    project.example("good/old.v3", {"order_id": "o-1", "total": 5})


LOGICAL = [
    *({"type": "long", "logicalType": f"{zone}timestamp-{unit}"} for zone in ("", "local-") for unit in UNITS),
    {"type": "int", "logicalType": "date"},
    {"type": "int", "logicalType": "time-millis"},
    {"type": "long", "logicalType": "time-micros"},
    {"type": "string", "logicalType": "uuid"},
    {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
    {"type": "fixed", "name": "Id", "size": 16, "logicalType": "uuid"},
    {"type": "fixed", "name": "Span", "size": 12, "logicalType": "duration"},
    {"type": "fixed", "name": "Price", "size": 8, "logicalType": "decimal", "precision": 9, "scale": 2},
]


def test_a_logical_type_that_one_library_does_not_know_is_no_finding(project: Project) -> None:
    """Two libraries see a UUID and its text, an instant and its number: the bytes are the same."""
    fields = [field(f"x{number}", schema) for number, schema in enumerate(LOGICAL)]
    project.put(record("OrderPlaced", field("order_id"), *fields))
    (project.folder / "examples/order/OrderPlaced/good/usual.json").unlink()
    assert [(one.rule, one.problem) for one in project.problems()] == [("missing-example", "it has no good example")]


@pytest.mark.parametrize(
    ("mischief", "rule", "words"),
    [
        (_orphan_schema, "orphan-schema", "it travels in no topic"),
        (_unknown_value, "topic-values", "did you mean 'shop.order.OrderPlaced'"),
        (_key_is_no_field, "topic-key", "its key is sku, but shop.order.OrderPlaced has no such field"),
        (
            _misspelt_consumer,
            "topic-names",
            "'order_statis' is no service, saga or view (did you mean 'order_status'?)",
        ),
        (_no_example, "missing-example", "no good example"),
        (_bad_example_accepted, "bad-example", "it is accepted"),
        (_bad_example_with_other_words, "bad-example", "total: takes a whole number, not a text"),
        (_good_example_refused, "good-example", "total: missing"),
        (_example_of_an_unreleased_version, "orphan-example", "version 3 of shop.order.OrderPlaced was never released"),
    ],
)
def test_each_broken_promise_is_found(
    project: Project, mischief: Callable[[Project], None], rule: str, words: str
) -> None:
    """One thing is broken, and the finding of its rule says so in plain words."""
    mischief(project)
    found = [finding for finding in project.check().findings if finding.rule == rule]
    assert len(found) == 1
    assert words in found[0].problem
    assert found[0].fix


def test_stale_records_are_found(project: Project) -> None:
    """A schema changed without its class is a finding, not a surprise at run time."""
    project.generate()
    project.put(record("OrderPlaced", field("order_id"), field("total", "long")))
    assert [finding.rule for finding in project.check(generate=False).findings] == ["stale-records"]


def test_who_reads_old_records_is_named_when_a_new_form_cannot(project: Project) -> None:
    """A required field that old records lack breaks the topic's consumers, for as long as the topic keeps them."""
    project.put(ORDER, version=1)
    project.put(record("OrderPlaced", *ORDER["fields"], field("currency")))
    project.example("good/usual", {"order_id": "o-1", "total": 5, "currency": "EUR"})
    (finding,) = project.problems()
    assert finding.rule == "compatibility"
    assert "readers of the form of today cannot read what version 1 wrote: OrderPlaced.currency" in finding.problem
    assert finding.breaks == ("order_status, place_order (reading order.events, which keeps such records for 30 days)",)
    assert finding.fix.startswith("give currency a default")


def test_who_is_not_yet_deployed_is_named_when_old_readers_break(project: Project) -> None:
    """A field that old readers need breaks them as soon as the producer is deployed."""
    project.put(ORDER, version=1)
    project.put(record("OrderPlaced", field("order_id")))
    project.example("good/usual", {"order_id": "o-1"})
    (finding,) = project.problems()
    assert "readers of version 1 cannot read what the form of today writes: OrderPlaced.total" in finding.problem
    assert finding.breaks == ("order_status, place_order (reading order.events, as soon as order is deployed)",)


def test_what_a_released_reader_needs_is_no_advice_to_change_that_reader(project: Project) -> None:
    """Version 1 cannot be given a default any more: the advice is about what is written."""
    project.put(ORDER, version=1)
    project.put(record("OrderPlaced", field("order_id")))
    project.example("good/usual", {"order_id": "o-1"})
    (finding,) = project.problems()
    assert finding.fix.startswith("go on writing total while such readers run: give it a default first")


def test_only_topics_that_promise_it_are_named(project: Project) -> None:
    """A topic that does not promise to be readable by old readers is not broken by a form that they cannot read."""
    project.put(ORDER, version=1)
    project.put(record("OrderPlaced", field("order_id")))
    project.example("good/usual", {"order_id": "o-1"})
    replies = TOPIC.replace("order.events", "order.replies").replace("kind: events", "kind: replies")
    project.topic(replies + "compatibility: backward\n", "order.replies")
    (finding,) = project.problems()
    assert len(finding.breaks) == 1
    assert "order.events" in finding.breaks[0]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("full_transitive", 2), ("backward", 0), ("backward_transitive", 1), ("forward", 1), ("none", 0)],
)
def test_only_what_is_promised_is_checked(project: Project, mode: str, expected: int) -> None:
    """Version 1 lacks a field that today needs; version 2, the latest, needs one that today lacks."""
    project.put(record("OrderPlaced", field("order_id")), version=1)
    project.put(record("OrderPlaced", field("order_id"), field("total", "int", default=0), field("gone")), version=2)
    project.put(ORDER)
    project.topic(TOPIC + f"compatibility: {mode}\n")
    today = [finding for finding in project.check().findings if "the form of today" in finding.problem]
    assert len(today) == expected, [finding.problem for finding in today]


def test_an_example_of_an_old_version_is_read_as_today(project: Project) -> None:
    """What was written before a field existed still lies in topics, and is decoded into the class of today."""
    project.put(ORDER, version=1)
    project.put(record("OrderPlaced", *ORDER["fields"], field("currency", default="EUR")))
    project.example("good/before.v1", {"order_id": "o-1", "total": 5})
    report = project.check()
    assert report.ok, report.findings
    assert report.versions == 1
    project.example("good/before.v1", {"order_id": "o-1", "total": 5, "currency": "EUR"})
    (finding,) = project.problems()
    assert "currency: unknown field" in finding.problem


def test_a_judge_that_reads_something_else_is_heard(project: Project) -> None:
    """Where the two libraries differ, neither is believed."""

    class Contrary(FastavroReader):
        name = "contrary 1.0"

        def read(self, body: bytes, *, writer: Any, reader: Any) -> Any:
            return {**super().read(body, writer=writer, reader=reader), "total": -1}

    contracts = project.generate()
    examples = load_examples(contracts, project.folder / "examples")
    report = check_contracts(
        contracts,
        Catalogue.read(project.folder / "topics"),
        examples,
        [FastavroReader(), Contrary()],
        outsiders=["place_order", "order_status"],
    )
    assert "contrary 1.0 read different values" in report.findings[0].problem


@pytest.mark.parametrize(
    ("owner", "name", "content", "words"),
    [
        ("order/OrderPlacd", "good/x", {}, "which no Avro file defines (did you mean 'order/OrderPlaced'?)"),
        ("order/OrderPlaced", "god/x", {}, "it lies in no place"),
        ("order/OrderPlaced", "bad/x", {"expects": "missing", "record": {}}, 'it must be {"expect"'),
        ("order/OrderPlaced", "bad/x", {"expect": "", "record": {}}, 'it must be {"expect"'),
    ],
)
def test_an_example_without_a_schema_or_place_is_refused(
    project: Project, owner: str, name: str, content: Any, words: str
) -> None:
    """No example is passed over because of a misspelt folder or key."""
    project.example(name, content, owner=owner)
    with pytest.raises(ContractError) as caught:
        project.check()
    assert words in caught.value.cause


def test_a_consumer_that_nobody_knows_is_found_however_it_is_misspelt(project: Project) -> None:
    """Nothing would tell it of a break; one of another project is named in `towpath.toml`."""
    project.topic(TOPIC.replace("order_status", "odrer_sttaus"))
    (finding,) = [finding for finding in project.problems() if finding.rule == "topic-names"]
    assert finding.problem == "'odrer_sttaus' is no service, saga or view (did you mean 'order_status'?)"
    assert "[project] outsiders of towpath.toml" in finding.fix


def test_a_removed_record_is_never_answered_with_removing_its_versions(project: Project) -> None:
    """Its records lie in the topic: who deletes the versions could not read them any more."""
    project.put(ORDER, version=1)
    (project.source.folder / "order/OrderPlaced.avsc").unlink()
    with pytest.raises(ContractError) as caught:
        project.check()
    assert caught.value.next_step is not None
    assert caught.value.next_step.startswith("put OrderPlaced.avsc back: topics still hold its records")


def test_a_form_that_was_never_released_is_a_warning(project: Project) -> None:
    """It may run already, and no file would say what it promised; a released one is silent."""
    (finding,) = project.check().findings
    assert (finding.rule, finding.severity.value) == ("unreleased", "warning")
    assert finding.fix.startswith("towpath contracts release")
    project.put(ORDER, version=1)
    assert project.check().findings == ()
    project.put(record("OrderPlaced", *ORDER["fields"], field("currency", default="EUR")))
    assert [finding.rule for finding in project.check().findings] == ["unreleased"]


def test_one_cause_is_one_finding_however_many_versions_it_breaks(project: Project) -> None:
    """The finding names all of them, and shows a record that fails."""
    project.put(ORDER, version=1)
    project.put(record("OrderPlaced", *ORDER["fields"], field("note", default="")), version=2)
    project.put(record("OrderPlaced", *ORDER["fields"], field("currency")))
    project.example("good/usual", {"order_id": "o-1", "total": 5, "currency": "EUR"})
    (finding,) = project.problems()
    assert "cannot read what version 1 and version 2 wrote: OrderPlaced.currency" in finding.problem
    assert finding.place == "OrderPlaced.currency"
    assert finding.sample == '{"order_id": "a", "total": 1} (cannot be read: SchemaResolutionError)'


def test_who_passes_a_record_over_does_not_care(project: Project) -> None:
    """A view that folds other records of the topic is named as not affected, and not among those that break."""
    project.topic(TOPIC.replace("consumers: [", "consumers: [audit, ").replace("values: [", "values: [shop.order.X, "))
    project.put(record("X", field("order_id")))
    project.put(record("X", field("order_id")), version=1)
    project.put(record("X", field("order_id"), field("new")))
    project.example("good/x", {"order_id": "o", "new": "n"}, owner="order/X")
    project.topic_readers("audit", record("X", field("order_id")))
    (finding,) = project.problems()
    assert finding.subject == "shop.order.X"
    assert finding.breaks == ("audit (reading order.events, which keeps such records for 30 days)",)
    assert finding.unaffected == ("saga place_order", "view order_status")


def test_a_reader_that_keeps_its_own_schema_is_judged_by_that(project: Project) -> None:
    """A field that it does not use may go; one that it uses may not, whatever the topic promises."""
    project.topic(TOPIC.replace("consumers: [", "consumers: [billing, ") + "compatibility: backward\n")
    project.put(ORDER, version=1)
    project.put(record("OrderPlaced", field("order_id")))
    project.example("good/usual", {"order_id": "o-1"})
    project.topic_readers("billing", record("OrderPlaced", field("order_id")))
    assert project.problems() == []
    project.topic_readers("billing", record("OrderPlaced", field("total", "int")))
    (finding,) = project.problems()
    assert finding.problem.startswith("billing cannot read what the form of today writes: OrderPlaced.total")
    assert finding.breaks == ("billing (schemas/readers/billing/OrderPlaced.avsc)",)


def test_a_file_that_no_topic_carries_is_one_finding(project: Project) -> None:
    """What lies inside it is no orphan of its own, and of two that hold each other one is told."""
    inner = record("Inner", field("kind", {"type": "enum", "name": "Kind", "symbols": ["a"]}))
    project.put(record("Lost", field("inner", inner)))
    project.put(record("One", field("two", ["null", "shop.order.Two"])))
    project.put(record("Two", field("one", ["null", "shop.order.One"])))
    lost = [finding.subject for finding in project.problems() if finding.rule == "orphan-schema"]
    assert lost == ["shop.order.Lost", "shop.order.One"]


def test_a_consumer_that_only_keeps_its_schema_is_a_consumer(project: Project) -> None:
    """Topics that follow from code name no outsiders: its reader schema alone says that it reads them."""
    project.put(ORDER, version=1)
    project.put(record("OrderPlaced", field("order_id")))
    project.example("good/usual", {"order_id": "o-1"})
    project.topic_readers("billing", record("OrderPlaced", field("total", "int")))
    told = [who for finding in project.problems() for who in finding.breaks]
    assert "billing, order_status, place_order (reading order.events, as soon as order is deployed)" in told
