"""Tracing with OpenTelemetry: one trace a saga, through every process that it passes, by the header `traceparent`.

The one rule: while it is off, nothing costs more than the test of a flag. It is on once a provider is given to `use`,
which `configure_tracing` does where the settings say so. The header is the W3C's, whoever wrote it.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Tracer, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from towpath.errors import ConfigurationError
from towpath.settings import Settings

__all__ = ["Span", "SpanKind", "configure_tracing", "is_on", "span", "traceparent", "use"]

_NAME = "towpath"
_HEADER = "traceparent"
_PROPAGATOR = TraceContextTextMapPropagator()
_tracer: Tracer | None = None


def is_on() -> bool:
    """Return whether spans are recorded."""
    return _tracer is not None


def use(provider: TracerProvider | None) -> None:
    """Record spans with `provider` from now on; None stops it."""
    global _tracer  # noqa: PLW0603 - a process traces or does not
    _tracer = None if provider is None else provider.get_tracer(_NAME)


@contextmanager
def span(
    name: str,
    attributes: Mapping[str, Any] | None = None,
    *,
    parent: str | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
    start_nanoseconds: int | None = None,
) -> Iterator[Span]:
    """Record a span around the block: below `parent`, a traceparent; in a trace of its own where that is empty.

    Without `parent` it lies below the span that is open here. Attributes that are None are left out. While tracing is
    off, the block sees a span that records nothing.
    """
    if _tracer is None:
        yield trace.INVALID_SPAN
        return
    context = None if parent is None else _PROPAGATOR.extract({_HEADER: parent}, Context())
    known = {key: value for key, value in (attributes or {}).items() if value is not None}
    with _tracer.start_as_current_span(name, context, kind, attributes=known, start_time=start_nanoseconds) as opened:
        yield opened


def traceparent(of: Span | None = None) -> str | None:
    """Return the header that makes a message a child of the span `of`, by default of the one that is open here.

    None where there is none, or it records nothing. An application's own tracing counts, whether ours is on or not.
    """
    if of is None and not trace.get_current_span().get_span_context().is_valid:
        return None
    carrier: dict[str, str] = {}
    context: Context | None = None if of is None else trace.set_span_in_context(of)
    _PROPAGATOR.inject(carrier, context)
    return carrier.get(_HEADER)


def goes_on_in(home: str) -> str | None:
    """Return the header for what goes on in the trace of `home`, a traceparent, because of the span that is open here.

    Where that span is of another trace (a person's signal, a timer), it stands in the trace of `home` as well, and each
    of the two links to the other.
    """
    here = trace.get_current_span()
    there = trace.get_current_span(_PROPAGATOR.extract({_HEADER: home}, Context())).get_span_context()
    if _tracer is None or not there.is_valid or there.trace_id == here.get_span_context().trace_id:
        return traceparent()
    with span(getattr(here, "name", _NAME), getattr(here, "attributes", None), parent=home) as twin:
        twin.add_link(here.get_span_context())
        here.add_link(twin.get_span_context())
        return traceparent(twin)


def configure_tracing(settings: Settings, *, service: str) -> None:
    """Export the spans of this process, called `service`, as the settings say.

    Raises ConfigurationError where the exporter is not installed.
    """
    if settings.tracing.exporter == "none":
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider as Provider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    except ImportError as error:
        raise ConfigurationError(
            f"spans cannot be exported: {error}",
            kept="everything else, which needs no tracing",
            next_step="pip install 'towpath[tracing]', or set tracing.exporter to none",
        ) from error
    provider = Provider(
        resource=Resource.create({"service.name": service, "service.namespace": settings.project.name}),
        sampler=ParentBased(TraceIdRatioBased(settings.tracing.share)),
    )
    url = f"{settings.tracing.endpoint.rstrip('/')}/v1/traces"
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))
    use(provider)
