"""A worker of the catalog service that is killed once, between a commit and the hand-over of its replies.

`python -m tests.crash.handover_worker MARKER`: the file MARKER says that it has been killed.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from pipelines.services.catalog import service
from towpath.contract.catalogue import Catalogue
from towpath.contract.registry import load_codec
from towpath.logs import configure_logs
from towpath.outbox.kafka import KafkaHandover
from towpath.outbox.message import OutboxMessage
from towpath.participant.agent import create_participant
from towpath.settings import load_settings


class Killing(KafkaHandover):
    """Ends the process instead of handing over, the first time."""

    marker: Path

    def hand_over(self, messages: tuple[OutboxMessage, ...]) -> int:
        """Die, or hand over."""
        if not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().hand_over(messages)


def main(marker: str) -> None:
    """Run the worker."""
    settings = load_settings()
    configure_logs(settings, worker="service:catalog/killed")
    catalogue = Catalogue.load(settings)
    handover = Killing(settings.kafka, per_second=50, name="catalog")
    handover.marker = Path(marker)
    ready = Path(os.environ["TOWPATH_READY_FILE"])

    async def tell_ready() -> None:
        await asyncio.to_thread(ready.touch)

    app = create_participant(
        settings,
        service,
        load_codec(settings, catalogue, catalogue.topics_of("catalog")),
        catalogue,
        slot="1",
        on_ready=tell_ready,
        handover=handover,
    )
    app.run_worker()


if __name__ == "__main__":
    main(sys.argv[1])
