"""Reading a view from an application: typed rows, pages, and reads that see one's own writes.

`reading.py` says what is asked (pure), `postgres.py` asks it, `router.py` offers it over HTTP with FastAPI.
"""

from towpath.view.reads.reading import Filter, NotYetRead, Page, Read, Seen

__all__ = ["Filter", "NotYetRead", "Page", "Read", "Seen"]
