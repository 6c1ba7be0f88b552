"""The pytest plugin. It is registered with pytest by installing Towpath: a project's `conftest.py` names nothing.

| Fixture | Is |
|---|---|
| `towpath_project` | the whole project in memory (`InMemoryProject`), anew for each test |
| `towpath_service` | a function that gives a service a scratch database of its own (`ServiceAlone`) |
| `towpath_contracts` | the project's contracts, to hold single messages to (`MessageCheck`) |
| `towpath_postgres_url` | the URL of the server for scratch databases, from `--towpath-postgres` |
| `towpath_server` | that server (`ScratchServer`), None without one |

And a conversation with a saga (`given`) that leaves something over at the end of its test fails that test.

The one rule: whatever the engine needs is imported by the fixture that needs it, so that a test run which does not use
Towpath pays nothing.
"""

import os
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from towpath.contract.message_check import MessageCheck
    from towpath.participant.service import Service
    from towpath.testing.parts import ProjectParts
    from towpath.testing.postgres import ScratchServer
    from towpath.testing.project import InMemoryProject
    from towpath.testing.service import ServiceAlone

OPTION = "--towpath-postgres"
VARIABLE = "TOWPATH_TEST_POSTGRES"
OF_THE_STACK = "up"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option, and the setting of the same name."""
    text = (
        "URL of a PostgreSQL server on which tests may create databases, which are dropped afterwards; "
        f"'{OF_THE_STACK}': the server that `towpath up` runs here. Else {VARIABLE}, or towpath_postgres in pytest's "
        "settings."
    )
    parser.getgroup("towpath", "Towpath").addoption(OPTION, metavar="URL", help=text)
    parser.addini("towpath_postgres", text)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    """Fail a test that ends while a saga that it talked to has said something that was not expected."""
    if "towpath.saga" not in sys.modules:
        return (yield)
    from towpath.saga.testing.conversation import begun

    conversations: list[Any] = []
    token = begun.set(conversations)
    try:
        result = yield
    finally:
        begun.reset(token)
    for conversation in conversations:
        if left := conversation.left_over:
            pytest.fail(
                f"{pyfuncitem.name} ends, and {conversation.definition.name} also sent what was not expected:\n{left}\n"
                "expect it, or say .expect_anything()",
                pytrace=False,
            )
    return result


@pytest.fixture(scope="session")
def towpath_postgres_url(request: pytest.FixtureRequest) -> str | None:
    """Return the URL of the PostgreSQL server for scratch databases, None where the run was given none."""
    config = request.config
    given = config.getoption(OPTION) or os.environ.get(VARIABLE) or config.getini("towpath_postgres")
    if given == OF_THE_STACK:
        from towpath.settings import load_settings
        from towpath.testing.postgres import server_url

        return server_url(load_settings())
    return given or None


@pytest.fixture(scope="session")
def towpath_server(towpath_postgres_url: str | None) -> "Iterator[ScratchServer | None]":
    """Return the server for scratch databases; override it where a project has a server of its own for tests."""
    if towpath_postgres_url is None:
        yield None
        return
    from towpath.testing.postgres import ScratchServer

    server = ScratchServer(towpath_postgres_url)
    yield server
    server.close()


@pytest.fixture(scope="session")
def _towpath_parts() -> "ProjectParts":
    from towpath.settings import load_settings
    from towpath.testing.parts import ProjectParts

    return ProjectParts.load(load_settings())


@pytest.fixture
def towpath_project(
    _towpath_parts: "ProjectParts", towpath_server: "ScratchServer | None"
) -> "Iterator[InMemoryProject]":
    """Return the project in whose folder the tests run, in memory: nothing has happened in it yet."""
    from towpath.testing.project import InMemoryProject

    project = InMemoryProject(_towpath_parts, towpath_server)
    yield project
    project.close()


@pytest.fixture
def towpath_service(
    _towpath_parts: "ProjectParts", towpath_server: "ScratchServer | None"
) -> "Iterator[Callable[[Service], ServiceAlone]]":
    """Return a function that gives a service an empty database with its tables; skip without a PostgreSQL server."""
    if towpath_server is None:
        pytest.skip(
            f"a service needs PostgreSQL: pytest {OPTION} URL, or {OPTION} {OF_THE_STACK} beside a running stack"
        )
    from towpath.testing.service import ServiceAlone

    with ExitStack() as ends:

        def make(service: "Service") -> "ServiceAlone":
            alone = ServiceAlone(service, _towpath_parts, towpath_server)
            ends.callback(alone.close)
            return alone

        yield make


@pytest.fixture(scope="session")
def towpath_contracts() -> "MessageCheck":
    """Return the contracts of the project in whose folder the tests run, loaded once."""
    from towpath.contract.catalogue import Catalogue
    from towpath.contract.codec import Codec
    from towpath.contract.files import load_contracts, schema_sets
    from towpath.contract.message_check import MessageCheck
    from towpath.parties import load_parties
    from towpath.settings import load_settings

    settings = load_settings()
    contracts, catalogue = load_contracts(schema_sets(settings)), Catalogue.load(settings)
    return MessageCheck(contracts, catalogue, load_parties(settings, catalogue), Codec.of(contracts))
