"""The files of a whole new project: one saga, two services, a view, their contracts, tests and ways to run. Pure."""

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any, Final

import jinja2

from towpath.scaffold.records import FieldSpec, RecordSpec, field_of, namespace

_ORDER: Final = field_of("order_id", "The order.")
_REASON: Final = field_of("reason", "Why, in words for the customer.")
_AMOUNT: Final = field_of("amount_cents:long", "The amount, in cents.")


def _record(service: str, name: str, doc: str, *fields: FieldSpec) -> RecordSpec:
    return RecordSpec(service, name, doc, (_ORDER, *fields))


RECORDS: Final = (
    _record(
        "order",
        "OrderPlaced",
        "A customer placed an order. It starts the saga place_order.",
        field_of("total_cents:long", "What the order costs, in cents."),
        field_of("placed_at:time", "When it was placed."),
    ),
    _record("order", "ConfirmOrder", "Promise the goods to the customer."),
    _record("order", "OrderConfirmed", "The order is confirmed.", field_of("confirmed_at:time", "When it was.")),
    _record("order", "RejectOrder", "The order will not be fulfilled.", _REASON),
    _record("order", "OrderRejected", "The order was rejected.", _REASON),
    _record("payment", "AuthorisePayment", "Block an amount on the customer's card.", _AMOUNT),
    _record("payment", "PaymentAuthorised", "The amount is blocked.", _AMOUNT),
    _record("payment", "PaymentDeclined", "Nothing was blocked.", _REASON),
    _record("payment", "VoidPayment", "Free the amount again."),
    _record("payment", "PaymentVoided", "Nothing is blocked any more."),
)
_EVENTS: Final = ("OrderPlaced", "OrderConfirmed", "OrderRejected")
# Template -> where it goes.
_TEMPLATES: Final[Mapping[str, str]] = {
    "towpath.toml": "towpath.toml",
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "gitignore": ".gitignore",
    "dockerignore": ".dockerignore",
    "ci.yml": ".github/workflows/ci.yml",
    "sagas_init.py": "sagas/__init__.py",
    "place_order.py": "sagas/place_order.py",
    "order_service.py": "pipelines/services/order/service.py",
    "payment_service.py": "pipelines/services/payment/service.py",
    "order_status.py": "pipelines/views/order_status.py",
    "order.sql": "infra/postgres/order.sql",
    "payment.sql": "infra/postgres/payment.sql",
    "place_orders.py": "place_orders.py",
    "test_place_order.py": "tests/test_place_order.py",
    "test_orders.py": "tests/test_orders.py",
    "Dockerfile": "infra/images/towpath/Dockerfile",
}
# What is the same in every project, byte for byte.
_PLAIN: Final[Mapping[str, str]] = {
    "requirements.lock": "requirements.lock",
    "healthy.sh": "infra/compose/healthy.sh",
    "secrets.sh": "infra/compose/secrets.sh",
}


def project_files(name: str, version: str) -> dict[str, str]:
    """Return the text of each file of a new project called `name`, by its path; `version` is that of the engine.

    What is generated from them (record classes, derived topics, docker-compose.yml) is left out.
    """
    said = {"project": name, "version": version}
    files = {path: render(f"project/{template}", **said) for template, path in _TEMPLATES.items()}
    files |= {path: _text(template) for template, path in _PLAIN.items()}
    files |= {
        "pipelines/__init__.py": '"""What moves: services and views."""\n',
        "pipelines/services/__init__.py": '"""One folder a service, each with its `service`."""\n',
        "pipelines/views/__init__.py": '"""One module a view, each with its `view`."""\n',
        "schemas/__init__.py": '"""What topics promise: Avro records, examples, topics of events."""\n',
        "infra/compose/secrets/.gitignore": "*\n!.gitignore\n",
        "schemas/topics/order.events.yaml": topic_text(
            name, "order.events", "order_id", _EVENTS, "What happened to orders; place_order starts from here."
        ),
    }
    for service in ("order", "payment"):
        files[f"pipelines/services/{service}/__init__.py"] = service_init(service)
        own = [record for record in RECORDS if record.service == service]
        files |= {avro_path(record): record.avro(name) for record in own}
        files[examples_path(service)] = examples_text({}, own)
    return dict(sorted(files.items()))


def service_init(service: str) -> str:
    """Return the text of the package of a service: it hands on what the module beside it defines."""
    return (
        f'"""The service {service}."""\n\nfrom pipelines.services.{service}.service import service\n\n'
        '__all__ = ["service"]\n'
    )


def avro_path(record: RecordSpec) -> str:
    """Return where the Avro file of a record lies."""
    return f"schemas/avro/{record.service}/{record.name}.avsc"


def examples_path(service: str) -> str:
    """Return where the examples of the records of a service lie."""
    return f"schemas/examples/{service}.json"


def examples_text(known: Mapping[str, Any], records: list[RecordSpec]) -> str:
    """Return the text of a file of examples: those that are `known`, and one for each of `records` that has none."""
    added = {one.name: {"good": {"usual": one.example()}} for one in records if one.name not in known}
    return json.dumps({**known, **added}, indent=2, ensure_ascii=False) + "\n"


def topic_text(project: str, topic: str, key: str, records: tuple[str, ...], doc: str) -> str:
    """Return the text of the file of a topic of events; the rest of what a topic needs is derived."""
    service = topic.partition(".")[0]
    values = "".join(f"  - {namespace(project)}.{service}.{record}\n" for record in records)
    return f"topic: {topic}\ndoc: {doc}\nkey: {key}\nvalues:\n{values}"


def render(template: str, **said: Any) -> str:
    """Return a template with what was said filled in."""
    environment = jinja2.Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - code and YAML, no HTML
    )
    return environment.from_string(_text(f"{template}.j2")).render(**said)


def _text(name: str) -> str:
    folder = resources.files(__package__) / "templates"
    return folder.joinpath(*name.split("/")).read_text(encoding="utf-8")
