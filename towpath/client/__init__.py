"""An application's door: start a saga in a transaction of its own, ask how it stands, await its ending.

`saga.py` says what there is to know (pure), `postgres.py` writes the start and reads the view of instances.
"""

from towpath.client.saga import InstanceStatus, NotEnded, Started

__all__ = ["InstanceStatus", "NotEnded", "Started"]
