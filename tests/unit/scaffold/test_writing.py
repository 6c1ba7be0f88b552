"""Parts are complete as they are written, and writing again changes nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.next_steps import apart
from tests.stack_fixture import ROOT, stack_environment
from towpath.contract.parse import parse
from towpath.errors import ConfigurationError, ExitCode
from towpath.scaffold.parts import Part, service_part
from towpath.scaffold.plan import RECORDS, project_files, topic_text
from towpath.scaffold.records import RecordSpec, field_of, parse_fields, split_record
from towpath.scaffold.writing import write_missing, write_part
from towpath.settings import load_settings

WORDS = (
    "order_id",
    "pieces:int",
    "total_cents:long?",
    "at:time",
    "skus:string[]",
    "day:date",
    "id:uuid",
    "sure:boolean",
)


def test_a_record_is_avro_with_the_fields_that_were_named() -> None:
    """Its file is one that the contracts read, and its example has every field."""
    record = RecordSpec("order", "OrderPacked", "It is packed.", parse_fields(WORDS))
    found = parse(json.loads(record.avro("my-shop")), source="OrderPacked.avsc")
    assert list(found) == ["my_shop.order.OrderPacked"]
    assert list(record.example()) == [word.partition(":")[0] for word in WORDS]


@pytest.mark.parametrize("word", ["Total:int", "total:money", "a b", ":int", "total:int??"])
def test_a_field_that_is_none_is_refused(word: str) -> None:
    """By name, with the types that there are."""
    with pytest.raises(ConfigurationError, match="is no field"):
        field_of(word)


@pytest.mark.parametrize("name", ["OrderPlaced", "order.placed", "Order.Placed", "order."])
def test_a_record_that_is_none_is_refused(name: str) -> None:
    """Service and record are both named."""
    with pytest.raises(ConfigurationError, match="is no record"):
        split_record(name)


def test_orders_that_are_placed_before_the_stack_is_up_end_in_what_to_do(tmp_path: Path) -> None:
    """The script of a new project says so in the error's lines and exit code, as a command does."""
    assert apart(tmp_path, "new", "shop").code == 0
    done = subprocess.run(
        [sys.executable, "place_orders.py"],
        cwd=tmp_path / "shop",
        env={**os.environ, **stack_environment(tmp_path / "stack"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (ExitCode.FAILED, ""), done.stderr
    assert [line.partition(":")[0] for line in done.stderr.splitlines()][1:] == ["kept", "next"]


def test_what_is_there_stays(tmp_path: Path) -> None:
    """Only what is missing is written."""
    (tmp_path / "README.md").write_text("mine", encoding="utf-8")
    files = project_files("myshop", "0.1.0")
    written = write_missing(tmp_path, files)
    assert Path("README.md") not in written
    assert len(written) == len(files) - 1
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == "mine"
    assert write_missing(tmp_path, files) == ()


def test_services_and_views_are_found_in_their_folders(tmp_path: Path) -> None:
    """A new project lists none in towpath.toml, and has both."""
    write_missing(tmp_path, project_files("myshop", "0.1.0"))
    project = load_settings(tmp_path, environment=False).project
    assert project.services == ("pipelines.services.order:service", "pipelines.services.payment:service")
    assert project.views == ("pipelines.views.order_status:view",)


def test_a_part_is_written_once(tmp_path: Path) -> None:
    """The second time there is nothing to write, and an example that a person changed stays as it is."""
    part = service_part("shipping", "order_id")
    assert len(write_part(tmp_path, "myshop", part)) == 3 + 5 + 1
    path = tmp_path / "schemas/examples/shipping.json"
    path.write_text(path.read_text(encoding="utf-8").replace("order-1", "o-77"), encoding="utf-8")
    assert write_part(tmp_path, "myshop", part) == ()
    assert "o-77" in path.read_text(encoding="utf-8")


def test_a_value_is_added_to_the_list_of_a_topic(tmp_path: Path) -> None:
    """Behind those that it has, whatever a person wrote around them."""
    folder = tmp_path / "schemas" / "topics"
    folder.mkdir(parents=True)
    text = "# ours\n" + topic_text("shop", "order.events", "order_id", ("OrderPlaced",), "Orders.")
    (folder / "order.events.yaml").write_text(text + "retention_days: 7\n", encoding="utf-8")
    part = Part({}, values={"order.events": ("shop.order.OrderPlaced", "shop.order.OrderPacked")})
    assert write_part(tmp_path, "shop", part) == (Path("schemas/topics/order.events.yaml"),)
    assert (folder / "order.events.yaml").read_text(encoding="utf-8") == (
        text + "  - shop.order.OrderPacked\nretention_days: 7\n"
    )
    assert write_part(tmp_path, "shop", part) == ()


def test_a_list_that_nothing_can_be_added_to_is_left_alone(tmp_path: Path) -> None:
    """Its values are in a form of their own: the person is told what to add."""
    folder = tmp_path / "schemas" / "topics"
    folder.mkdir(parents=True)
    (folder / "order.events.yaml").write_text("topic: order.events\nvalues: [shop.order.A]\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="no list with a line each") as caught:
        write_part(tmp_path, "shop", Part({}, values={"order.events": ("shop.order.B",)}))
    assert "shop.order.B" in (caught.value.next_step or "")


def test_what_is_the_same_in_every_project_is_ours() -> None:
    """The scripts that containers use are those of this repository, byte for byte."""
    root = Path(__file__).resolve().parents[3]
    files = project_files("myshop", "0.1.0")
    for name in ("infra/compose/healthy.sh", "infra/compose/secrets.sh"):
        assert files[name] == (root / name).read_text(encoding="utf-8")
    assert len({record.name for record in RECORDS}) == len(RECORDS)
