"""Serves the metrics of one worker on a port of its own, and adds what this worker alone can look up."""

from wsgiref.simple_server import WSGIServer

from towpath.settings import Settings

PORTS_TRIED = 100
"""Workers of one machine take the first free port each, counted from `metrics_port`."""


def serve_metrics(settings: Settings, name: str) -> tuple[int, WSGIServer] | None:
    """Serve the metrics of the worker called `name`; return the port that it got, and the server.

    None where `metrics_port` is not set, or none of the ports from there on is free: a worker works without metrics.
    """
    import structlog
    from prometheus_client import start_http_server

    log = structlog.get_logger("towpath.cli.run")
    if settings.metrics_port is None:
        return None
    _add_samples(settings, name)
    for port in range(settings.metrics_port, min(settings.metrics_port + PORTS_TRIED, 65_536)):
        try:
            server, _ = start_http_server(port)
        except OSError:
            continue
        log.info("metrics", port=port)
        return port, server
    log.warning("no port is free for metrics", first=settings.metrics_port, tried=PORTS_TRIED)
    return None


def _add_samples(settings: Settings, name: str) -> None:
    from towpath.metrics import SAMPLING
    from towpath.orchestrator.gauges.postgres import SagaGauges
    from towpath.outbox.gauges.postgres import OutboxGauges
    from towpath.outbox.names import VIEWS_DATABASE
    from towpath.project import SAGAS_VIEW_WORKER, load_sagas

    kind, _, which = name.partition(":")
    if kind == "service":
        SAMPLING.add(f"outbox of {which}", OutboxGauges(settings, which))
    elif name == SAGAS_VIEW_WORKER:
        url, options = settings.postgres.database_url(VIEWS_DATABASE), settings.postgres.connection_options()
        SAMPLING.add("sagas", SagaGauges(url, options, load_sagas(settings)))
