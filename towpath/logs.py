"""Structured logs, set up once at the edge of a process: for people on a terminal, as JSON lines elsewhere.

A log line carries names, ids and positions, never a payload.
"""

import logging
import sys

import structlog

from towpath.errors import TowpathError
from towpath.settings import Settings


def configure_logs(settings: Settings, *, worker: str) -> None:
    """Send the logs of this process, Faust's and librdkafka's included, to stderr; every line names `worker`."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if settings.log_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_without_our_frames)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    # One line for each request would drown what a worker has to say: it asks the registry once a schema, at start.
    logging.getLogger("httpx").setLevel(max(root.level, logging.WARNING))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(settings.log_level.upper())),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(worker=worker)


def _without_our_frames(record: logging.LogRecord) -> bool:
    """Log an error of ours without a traceback: its message says who must act. What another one caused keeps it."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, TowpathError) and error.__cause__ is None:
        record.exc_info = None
    return True
