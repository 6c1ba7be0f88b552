"""What a connector's configuration is derived from."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from towpath.capture.connector import outbox_connector, parse_address
from towpath.contract.catalogue import Catalogue
from towpath.errors import ConfigurationError
from towpath.outbox.message import COLUMNS
from towpath.settings import ConnectSettings, PostgresSettings, Settings, load_settings

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings(ROOT, environment=False)


@pytest.fixture(scope="module")
def catalogue(settings: Settings) -> Catalogue:
    return Catalogue.load(settings)


def test_names_come_from_project_and_service(settings: Settings, catalogue: Catalogue) -> None:
    """Two projects on one Connect and one PostgreSQL do not meet."""
    connector = outbox_connector(settings, catalogue, "order")
    assert connector.name == "craftygoods-order-outbox"
    assert connector.config["slot.name"] == "craftygoods_order_outbox"
    assert connector.config["topic.prefix"] == "craftygoods.order"


def test_the_database_is_the_one_that_the_settings_name(settings: Settings, catalogue: Catalogue) -> None:
    """As the workers reach it, unless Connect reaches it elsewhere."""
    postgres = PostgresSettings(
        url="postgresql://u@db.example:6000",
        urls={"order": SecretStr("postgresql://u@other:7000/orders?sslmode=require")},
    )
    connect = ConnectSettings(database_host="inside", database_port=5432)
    apart = settings.model_copy(update={"postgres": postgres})
    within = settings.model_copy(update={"postgres": postgres, "connect": connect})
    config = outbox_connector(apart, catalogue, "order").config
    assert [config[f"database.{part}"] for part in ("hostname", "port", "dbname", "sslmode")] == [
        "other",
        "7000",
        "orders",
        "require",
    ]
    config = outbox_connector(within, catalogue, "catalog").config
    assert [config[f"database.{part}"] for part in ("hostname", "port", "dbname")] == ["inside", "5432", "catalog"]


def test_a_reference_stands_for_the_password_where_connect_resolves_it(
    settings: Settings, catalogue: Catalogue
) -> None:
    """Connect's REST API shows a connector's configuration to whoever asks."""
    postgres = PostgresSettings(capture_password=SecretStr("hidden"))
    plain = settings.model_copy(update={"postgres": postgres})
    referring = plain.model_copy(update={"connect": ConnectSettings(capture_password="${directory:/run:secret}")})
    assert outbox_connector(plain, catalogue, "order").config["database.password"] == "hidden"
    assert outbox_connector(referring, catalogue, "order").config["database.password"] == "${directory:/run:secret}"


def test_every_column_that_is_a_header_is_placed(settings: Settings, catalogue: Catalogue) -> None:
    """A column added to the outbox travels without a second edit."""
    placed = outbox_connector(settings, catalogue, "order").config[
        "transforms.outbox.table.fields.additional.placement"
    ]
    assert {item.partition(":")[0] for item in placed.split(",")} == set(COLUMNS) - {"id", "topic", "key", "payload"}
    assert all(item.endswith(":header") for item in placed.split(","))


def test_a_service_that_the_catalogue_does_not_know_has_nothing_to_capture(
    settings: Settings, catalogue: Catalogue
) -> None:
    """The mistake is a name in one of two files, and both are named."""
    with pytest.raises(ConfigurationError, match="service shipping") as raised:
        outbox_connector(settings, catalogue, "shipping")
    assert "schemas/topics" in str(raised.value)


@pytest.mark.parametrize("url", ["postgresql:///order", "postgresql://u@host", "host/order"])
def test_a_database_url_without_host_or_database_is_refused(url: str) -> None:
    """Debezium has no socket and no default database."""
    with pytest.raises(ConfigurationError):
        parse_address(url)


def test_the_port_of_postgresql_is_assumed_where_none_is_named() -> None:
    """As psycopg does."""
    assert parse_address("postgresql://u@host/db").port == 5432


@pytest.mark.parametrize(
    ("setting", "value", "loss"),
    [
        ("offset.mismatch.strategy", "trust_offset", "else a slot behind the stored offset is moved over unsent rows"),
        ("snapshot.mode", "no_data", "else every restart without offsets sends the whole outbox again"),
        ("slot.drop.on.stop", "false", "else what is written while Connect is away is gone"),
        ("publication.autocreate.mode", "disabled", "else the capture role would need to own the tables"),
        ("errors.max.retries", "-1", "else a database that is away for long ends the task"),
    ],
)
def test_settings_that_messages_depend_on_are_stated(
    settings: Settings, catalogue: Catalogue, setting: str, value: str, loss: str
) -> None:
    """Debezium's defaults may change with a version; what was found to lose messages must not change with them."""
    assert outbox_connector(settings, catalogue, "order").config[setting] == value, loss
