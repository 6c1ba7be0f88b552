"""An application's door: start a saga in a transaction of its own, signal and ask it, await its ending.

`saga.py` says what there is to know and `messages.py` what is sent (pure); `postgres.py` and `asynchronous/postgres.py`
write it through the caller's own connection, and read the view of instances.
"""

from towpath.client.asynchronous.postgres import AsyncClient
from towpath.client.messages import Sent
from towpath.client.postgres import Client
from towpath.client.saga import InstanceStatus, NotAnswered, NotCompleted, NotEnded, Started
from towpath.orchestrator.requests import Answer
from towpath.saga.inputs import Action

__all__ = [
    "Action",
    "Answer",
    "AsyncClient",
    "Client",
    "InstanceStatus",
    "NotAnswered",
    "NotCompleted",
    "NotEnded",
    "Sent",
    "Started",
]
