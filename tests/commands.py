"""Commands as the orchestrator sends them, for tests of participants."""

from dataclasses import dataclass
from pathlib import Path

from towpath.contract.codec import Codec
from towpath.contract.files import schema_sets
from towpath.orchestrator.envelope import headers_of
from towpath.settings import load_settings
from towpath.stream.broker.record import ConsumedRecord
from towpath.testing import asking

CODEC = Codec.offline(schema_sets(load_settings(Path(__file__).resolve().parents[1], environment=False)))
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@dataclass(frozen=True, slots=True)
class Asking(asking.Asking):
    """What is asked of a service on behalf of one order of the shop. Change it with `dataclasses.replace`."""

    key: str = "o-1"
    saga: str = "place_order"
    deadline: str = "2026-01-01T00:00:00+00:00"

    def arriving(self, offset: int = 0, **changes: str | None) -> ConsumedRecord:
        """Return the record that carries it; `changes` replace headers, or drop them where they are None."""
        record = self.record(CODEC, "x.commands", offset, 1_700_000_000_000)
        said = {"traceparent": TRACE, **changes}
        kept = tuple(header for header in record.headers if header[0] not in said)
        return record._replace(headers=(*kept, *headers_of(**said)))
