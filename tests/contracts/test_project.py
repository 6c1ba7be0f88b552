"""The contracts of this repository hold: those of CraftyGoods and those of the engine itself."""

import pytest
from typer.testing import CliRunner

from towpath.cli.contracts_report import ContractsProject, report_of
from towpath.contract.catalogue import Catalogue
from towpath.contract.codec import Codec
from towpath.contract.examples import Example, load_examples
from towpath.contract.files import Contracts, load_contracts, schema_sets
from towpath.contract.json_form import read_json
from towpath.contract.write import stale_files
from towpath.settings import load_settings

SETTINGS = load_settings()
CONTRACTS: Contracts = load_contracts(schema_sets(SETTINGS))
CODEC = Codec.of(CONTRACTS)
EXAMPLES = load_examples(CONTRACTS, SETTINGS.root / SETTINGS.project.schemas / "examples")


def _id(example: Example) -> str:
    return example.name.removeprefix("examples/").removesuffix(".json")


def test_the_record_classes_are_those_of_the_avro_files() -> None:
    """Whoever changes an Avro file runs `towpath contracts generate` before the change is merged."""
    assert stale_files(CONTRACTS) == ()


def test_every_promise_holds() -> None:
    """The whole of `towpath contracts test`."""
    report = report_of(ContractsProject.load(SETTINGS))
    assert [(finding.rule, finding.subject, finding.problem) for finding in report.findings if finding.fails] == []
    assert len(report.judges) == 2


@pytest.mark.parametrize("example", [item for item in EXAMPLES if not item.expect and not item.version], ids=_id)
def test_a_good_example_becomes_a_record_and_the_same_json_again(example: Example) -> None:
    """Anyone can write a record as JSON, and reads in JSON what a record holds."""
    record = CODEC.from_json(example.record, example.content)
    again = CODEC.to_json(CODEC.decode(CODEC.encode(record)))
    assert CODEC.from_json(example.record, again) == record
    assert again.keys() >= example.content.keys()


@pytest.mark.parametrize("example", [item for item in EXAMPLES if item.expect], ids=_id)
def test_a_bad_example_is_refused_with_its_words(example: Example) -> None:
    """What must never be written is refused, for the reason that the example gives."""
    problems = read_json(CONTRACTS.schemas, example.record, example.content).problems
    assert any(str(example.expect) in problem for problem in problems), problems


def test_topics_of_one_saga_have_equal_partition_counts() -> None:
    """A saga's start events, commands, replies, timers and state meet in one partition number."""
    catalogue = Catalogue.load(SETTINGS)
    for saga in ("place_order", "cancel_order"):
        mine = [topic.name for topic in catalogue.live() if saga in (topic.owner, *topic.consumers, *topic.producers)]
        assert catalogue.require_equal_partitions(mine) == 4


def test_what_is_consumed_by_a_worker_has_a_dead_letter_topic() -> None:
    """A record that cannot be applied must have a place to go."""
    catalogue = Catalogue.load(SETTINGS)
    for topic in catalogue.live():
        if topic.consumers and not topic.compacted:
            assert catalogue.dead_letter(topic.name), f"{topic.name} has consumers and no dead section"


def test_the_command_line_reports_in_json() -> None:
    """`towpath contracts test --json` is one JSON document with the counts."""
    import json

    from towpath.cli.contracts import contracts_app

    done = CliRunner().invoke(contracts_app, ["test", "--json"])
    assert done.exit_code == 0
    report = json.loads(done.stdout)
    assert report["ok"] is True
    assert [finding["rule"] for finding in report["findings"]] == ["unreleased"]
    assert set(report) == {
        "ok", "findings", "records", "versions", "topics", "good_examples", "bad_examples", "decodings", "judges"
    }  # fmt: skip
