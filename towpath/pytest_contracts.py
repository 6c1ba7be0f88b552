"""A pytest plugin: a service tests its messages against the catalogue in one line.

In a project's `conftest.py`: `pytest_plugins = ["towpath.pytest_contracts"]`. Then, in a test:

    def test_what_is_written_when_an_order_is_placed(towpath_contracts):
        towpath_contracts.accepts(order_placed(cart), topic="order.events", key="o-1")
"""

import pytest

from towpath.contract.catalogue import Catalogue
from towpath.contract.codec import Codec
from towpath.contract.files import load_contracts, schema_sets
from towpath.contract.message_check import MessageCheck
from towpath.parties import load_parties
from towpath.settings import load_settings


@pytest.fixture(scope="session")
def towpath_contracts() -> MessageCheck:
    """Return the contracts of the project in whose folder the tests run, loaded once."""
    settings = load_settings()
    contracts, catalogue = load_contracts(schema_sets(settings)), Catalogue.load(settings)
    return MessageCheck(contracts, catalogue, load_parties(settings, catalogue), Codec.of(contracts))
