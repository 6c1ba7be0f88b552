"""`towpath contracts deployed`, `can-deploy` and `deploy-order`, where a view reads what a service writes."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.contracts.test_cli import TOPIC, contracts, order_placed, project, write
from tests.next_steps import step_in
from towpath.cli.contracts import contracts_app

__all__ = ["project"]
TOTAL = {"name": "total", "type": "long"}
SERVICE = """\
from towpath.participant import Service

service = Service("order", handlers=[])
"""
VIEW = """\
from dataclasses import dataclass

from shop_records.order import OrderPlaced
from towpath.view import View


@dataclass(frozen=True)
class Row:
    order_id: str


view = View(
    "status", topics=("order.events",), row=Row, key="order_id", folds=frozenset({OrderPlaced}), fold=lambda *_: None
)
"""


@pytest.fixture
def shop(project: Path) -> Iterator[Path]:
    """Return the project with a service `order` and a view `status`."""
    settings = '[project]\nname = "shop"\nrecords = "shop_records"\nschemas = "promises"\n'
    code = 'services = ["shop_order:service"]\nviews = ["shop_status:view"]\n'
    write(project / "towpath.toml", settings + code)
    write(project / "shop_order.py", SERVICE)
    write(project / "shop_status.py", VIEW)
    write(project / "promises/topics/order.events.yaml", TOPIC.replace("[billing]", "[status]"))
    change(project, TOTAL)
    yield project
    forget()


def change(folder: Path, *fields: dict[str, Any]) -> None:
    """Change the record, and generate its class anew."""
    write(folder / "promises/avro/order/OrderPlaced.avsc", order_placed(*fields))
    assert contracts("generate")[0] == 0
    forget()


def forget() -> None:
    """Let the next run import the project's modules as they are then."""
    for module in ("shop_order", "shop_status"):
        sys.modules.pop(module, None)


def run(*arguments: str) -> tuple[int, str]:
    """Run a verb; modules of the project are imported anew."""
    forget()
    return contracts(*arguments)


def test_what_runs_is_recorded_and_asked(shop: Path) -> None:
    """Recorded twice it runs once; the next version is judged beside what runs, and an order is told."""
    for what in ("order@1", "status@1", "status@1"):
        assert run("deployed", what, "--to", "production", "--actor", "ada")[0] == 0
    assert sorted(path.name for path in shop.glob("promises/deployed/production/*")) == ["order.json", "status.json"]
    assert run("can-deploy", "order@1", "--to", "production") == (0, "")
    assert json.loads(run("deploy-order", "--to", "production", "--json")[1])["order"] == []
    change(shop)
    code, text = run("can-deploy", "order@2", "--to", "production", "--json")
    (found,) = json.loads(text)["findings"]
    assert (code, found["breaks"]) == (3, ["status@1 (reading order.events)"])
    assert found["fix"] == "deploy status as it is in this folder first, then order"
    assert found["file"] == "promises/avro/order/OrderPlaced.avsc"
    assert run("can-deploy", "status@2", "--to", "production") == (0, "")
    order = json.loads(run("deploy-order", "--to", "production", "--json")[1])
    assert order == {"environment": "production", "order": ["status", "order"], "no_order": []}
    assert run("deployed", "status@2", "--to", "production")[0] == 0
    assert run("can-deploy", "order@2", "--to", "production") == (0, "")
    # The version that was recorded is judged as it was recorded, whatever this folder holds.
    assert run("can-deploy", "status@1", "--to", "production") == (0, "")
    assert run("deployed", "order@2", "--to", "production")[0] == 0
    code, text = run("can-deploy", "status@1", "--to", "production", "--json")
    assert code == 3
    assert "status@1 cannot read what order@2 writes" in json.loads(text)["findings"][0]["problem"]


def test_a_consumer_of_another_project_is_asked_too(shop: Path) -> None:
    """It is never deployed from here, and is judged by the reader schema that it keeps."""
    write(shop / "promises/topics/order.events.yaml", TOPIC.replace("[billing]", "[status, billing]"))
    write(shop / "promises/readers/billing/OrderPlaced.avsc", order_placed(TOTAL))
    assert run("can-deploy", "order@1", "--to", "production") == (0, "")
    change(shop)
    code, text = run("can-deploy", "order@2", "--to", "production", "--json")
    (found,) = json.loads(text)["findings"]
    assert (code, found["breaks"]) == (3, ["billing (another project's) (reading order.events)"])
    code, text = run("deploy-order", "--to", "production", "--json")
    assert (code, json.loads(text)["no_order"]) == (3, ["order"])


def test_where_both_need_the_other_first_there_is_no_order(shop: Path) -> None:
    """Exit code 3, and the next command says why."""
    run("deployed", "order@1", "--to", "production")
    run("deployed", "status@1", "--to", "production")
    change(shop, {**TOTAL, "type": "string"})
    code, text = run("deploy-order", "--to", "production", "--json")
    assert (code, json.loads(text)["no_order"]) == (3, ["order", "status"])
    forget()
    refused = CliRunner().invoke(contracts_app, ["deploy-order", "--to", "production"]).exception
    step = step_in(refused, "contracts can-deploy x@new --to x")
    assert step[2] == "order@new"
    code, text = run(*step[1:], "--format", "markdown")
    assert code == 3
    assert "in two steps, so that old and new can run side by side" in text


def test_what_is_not_there_is_said_in_words(shop: Path) -> None:
    """A party, a version, an environment."""
    assert run("can-deploy", "ordr@1", "--to", "production")[0] == 5
    assert run("can-deploy", "order", "--to", "production")[0] == 2
    assert run("deployed", "order@1", "--to", "production", "--dry-run")[0] == 0
    assert not (shop / "promises/deployed").exists()
    run("deployed", "order@1", "--to", "production")
    assert run("can-deploy", "order@2", "--to", "prodution")[0] == 5
    assert run("deployed", "order@../../x", "--to", "production")[0] == 3
