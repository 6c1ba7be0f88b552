"""Asks for a group's offsets without a pause until it is told to end: `python -m tests.crash.asking SERVERS GROUP`.

A process of its own: what it is to show is that it survives.
"""

import signal
import sys
import threading

from towpath.settings import KafkaSettings, StreamSettings
from towpath.stream.broker.kafka import KafkaBroker
from towpath.stream.broker.port import BrokerAway


def main() -> None:
    """Ask."""
    servers, group = sys.argv[1:]
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    broker = KafkaBroker(KafkaSettings(bootstrap_servers=servers), StreamSettings())
    while not ending.wait(0.02):
        try:
            broker.group_offsets(group)
        except BrokerAway:
            continue


if __name__ == "__main__":
    main()
