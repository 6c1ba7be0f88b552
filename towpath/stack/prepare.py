"""What the project needs on a stack whose parts answer: topics, schemas, tables, connectors; all made from its files.

Each function may run again at any time and changes nothing that is there already.
"""

from towpath.capture.start import start_capture
from towpath.contract.catalogue import Catalogue
from towpath.contract.files import load_contracts, schema_sets
from towpath.contract.kafka import ensure_topics
from towpath.contract.registry import RegistryClient
from towpath.participant.postgres import apply_service_schema
from towpath.settings import Settings
from towpath.stack.config import captured_databases, service_databases
from towpath.stack.postgres import apply_service_schemas

RUNNING_SECONDS_MAX = 60.0


def make_topics(settings: Settings) -> None:
    """Create the catalogue's topics."""
    ensure_topics(Catalogue.load(settings), settings)


def register_schemas(settings: Settings) -> None:
    """Register the schemas of the project and of the engine."""
    with RegistryClient(settings.registry) as registry:
        registry.register(load_contracts(schema_sets(settings)), Catalogue.load(settings))


def apply_tables(settings: Settings) -> None:
    """Give each captured database its outbox, and each service's its inbox and the service's own tables."""
    for service in service_databases(settings):  # first: each looks for an inbox of its own before anything is made
        apply_service_schema(settings, service)
    apply_service_schemas(settings, {})


def make_connectors(settings: Settings) -> None:
    """Create the connector of each outbox, and wait until all of them are read."""
    start_capture(settings, Catalogue.load(settings), captured_databases(settings), timeout_seconds=RUNNING_SECONDS_MAX)
