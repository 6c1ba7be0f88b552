"""Signals that are read before their saga's start event: they lie in another topic, so either may come first. Pure."""

from towpath.contract.codec import Codec
from towpath.orchestrator import envelope
from towpath.orchestrator import records as wire
from towpath.orchestrator.mapping import Messages
from towpath.orchestrator.record_context import RecordContext
from towpath.saga.inputs import Signalled
from towpath.stream.broker.port import OutputRefused
from towpath.stream.broker.record_limits import RecordLimits

EARLY_SIGNALS_MAX = 16
"""Signals kept for a key whose saga has not started: decisions about one order are a few."""
EARLY_SIGNAL_MILLISECONDS = 24 * 3600 * 1000
"""How long they are kept. Their saga's start was committed before them, so its record is at most an outage away."""

ENTRY_BYTES_SPARE = 4_096
"""What an entry of the history says beside the signal that it is about: ids, names of waits, a reason."""

EARLY = "e"


class BufferedSignals:
    """Keeps signals by business key until the saga starts, or never does; those for the next of a chain by its id."""

    def __init__(self, saga: str, codec: Codec, messages: Messages, limits: RecordLimits) -> None:
        self._history = envelope.topic_of(saga, envelope.HISTORY)
        self._codec = codec
        self._messages = messages
        self._limits = limits

    @staticmethod
    def subject(key: str) -> str:
        """Return what the timer that gives the signals of `key` up is about: no saga's id begins like that."""
        return f"{EARLY}:{key}"

    @staticmethod
    def key_of(subject: str) -> str | None:
        """Return the key that `subject` names, None if it is an instance's id."""
        return subject[2:] if subject.startswith(f"{EARLY}:") else None

    def keep(self, context: RecordContext, key: str, input_: Signalled) -> str:
        """Keep a signal, or return why it cannot be kept. One that is kept already is not kept twice.

        One that the history would not take cannot be decided about, so it is not kept either.
        """
        kept = self._kept(context, key)
        if any(signal.id == input_.id for signal in kept):
            return ""
        if len(kept) == EARLY_SIGNALS_MAX:
            return f"{EARLY_SIGNALS_MAX} signals wait for it already"
        message = self._messages.wrap(input_.signal)
        bytes_, bytes_max = len(message.payload), self._limits.of(self._history)
        if bytes_ + ENTRY_BYTES_SPARE > bytes_max:
            return f"a signal of {bytes_} bytes is too large for {self._history}, which takes {bytes_max}"
        signal = wire.EarlySignal(id=input_.id, at_milliseconds=input_.at_milliseconds, message=message)
        signals = wire.EarlySignals(key=key, signals=(*kept, signal))
        try:
            context.state.put(self._state_key(key), self._codec.encode(signals))
        except OutputRefused as error:
            return f"the signals that wait for it would not fit: {error.cause}"
        return ""

    def take(self, context: RecordContext, key: str) -> tuple[Signalled, ...]:
        """Return the signals of `key` in their order, and keep them no longer."""
        kept = self._kept(context, key)
        if kept:
            context.state.delete(self._state_key(key))
        return tuple(Signalled(s.id, s.at_milliseconds, self._messages.unwrap(s.message)) for s in kept)

    def _kept(self, context: RecordContext, key: str) -> tuple[wire.EarlySignal, ...]:
        content = context.state.get(self._state_key(key))
        if content is None:
            return ()
        decoded = self._codec.decode(content)
        assert isinstance(decoded, wire.EarlySignals)
        return decoded.signals

    @staticmethod
    def _state_key(key: str) -> bytes:
        return f"{EARLY}{key}".encode()
