"""What the verbs tell of their work to whoever traces and measures it: spans, and instruments with their names.

``contrib.otel`` and ``contrib.prometheus`` listen here, and any other ``Listener`` may. While nobody does, a report
costs a look at an empty tuple. A listener that fails is logged, and disturbs nobody. Imports the loggers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Self

from restate_django.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from restate_django.models import Invocation

logger = get_logger("restate_django.measuring")


class Kind(StrEnum):
    """What a piece of work is."""

    SEND = "send"
    CALL = "call"
    DELIVER = "deliver"
    POLL = "poll"


# ---------------------------------------------------------------- what is measured


class Shape(StrEnum):
    """How the values of an instrument are kept."""

    COUNTER = "counter"
    HISTOGRAM = "histogram"
    #: The last value. Of those of several processes the greatest is the one to be seen.
    GAUGE = "gauge"


@dataclass(frozen=True, eq=False)
class Instrument:
    """Something that is measured.

    Attributes:
        name: Its name below ``restate_django``, in words divided by dots.
        shape: How its values are kept.
        unit: ``s``, or what is counted in braces, as UCUM and OpenTelemetry have it.
        help: What it tells, in a sentence.
        labels: What its values are told apart by. Each has few values: never a key, an id or a text of Restate's.
            None is called ``job`` or ``instance``: those are Prometheus' own.
    """

    name: str
    shape: Shape
    unit: str
    help: str
    labels: tuple[str, ...]

    @property
    def full_name(self) -> str:
        """The name for OpenTelemetry."""
        return f"restate_django.{self.name}"

    @property
    def prometheus_name(self) -> str:
        """The name for Prometheus, as OpenTelemetry's is translated to. A counter's has no ``_total`` yet."""
        seconds = "_seconds" if self.unit == "s" else ""
        return self.full_name.replace(".", "_") + seconds


_TARGET: Final = ("connection", "service", "handler")

SENDS: Final = Instrument(
    "sends", Shape.COUNTER, "{invocation}", "Invocations that were recorded and committed.", (*_TARGET, "verb")
)
OUTCOMES: Final = Instrument(
    "outcomes",
    Shape.COUNTER,
    "{invocation}",
    "Invocations that took a status which is an end, or waits for a person.",
    (*_TARGET, "status"),
)
DELIVERY: Final = Instrument(
    "delivery.duration",
    Shape.HISTOGRAM,
    "s",
    "How long an attempt to hand an invocation to Restate took, by what came of it.",
    ("connection", "result"),
)
ACCEPTANCE: Final = Instrument(
    "acceptance.delay",
    Shape.HISTOGRAM,
    "s",
    "From when an invocation was recorded to when Restate had accepted it.",
    ("connection",),
)
RECORDING: Final = Instrument(
    "recording.delay",
    Shape.HISTOGRAM,
    "s",
    "From when an invocation ended, by Restate's clock, to when its row said so.",
    ("connection",),
)
JOB: Final = Instrument(
    "job.duration", Shape.HISTOGRAM, "s", "How long a sweep took: a run of a periodic job.", ("job_name", "result")
)
HTTP: Final = Instrument(
    "http.duration",
    Shape.HISTOGRAM,
    "s",
    "How long a request to a Restate server took, by its kind and the status of the answer ('none': none came).",
    ("kind", "status"),
)
BREAKER: Final = Instrument(
    "breaker.open_until.timestamp",
    Shape.GAUGE,
    "s",
    "Until when a process leaves a connection to the relay, because views waited for it in vain.",
    ("connection",),
)

#: All that is reported while work is done. What a database is asked for is in ``gauges``.
INSTRUMENTS: Final = (SENDS, OUTCOMES, DELIVERY, ACCEPTANCE, RECORDING, JOB, HTTP, BREAKER)

#: Bounds of the histograms' buckets in seconds: a request takes a few milliseconds, and a row may wait for hours.
BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)


# ---------------------------------------------------------------- who listens


class Doing:
    """What a listener holds of a piece of work while that lasts. This one does nothing."""

    def headers(self) -> Mapping[str, str]:
        """Return the headers that let the trace go on in the handlers."""
        return {}

    def end(self, error: BaseException | None) -> None:
        """Take note that the work is done.

        Args:
            error: What it ended with.
        """


class Listener:
    """Somebody who wants to hear of the work. This one hears nothing; a real one overrides what it wants."""

    def header_names(self) -> Collection[str]:
        """The names of the headers that it may give to an invocation, in lower case."""
        return ()

    def begin(self, work: Work) -> Doing | None:
        """Take note that a piece of work begins, in this thread. It may end in another."""

    def delivered(self, row: Invocation, seconds: float, error: Exception | None) -> None:
        """Take note of an attempt to hand a row to Restate that has just ended.

        Args:
            row: The row, as it was when it was claimed.
            seconds: How long the attempt took.
            error: What came instead of Restate's acceptance or what it knows of the row.
        """

    def add(self, instrument: Instrument, value: float, labels: Mapping[str, str]) -> None:
        """Take a value of an instrument."""


_listeners: tuple[Listener, ...] = ()


def listen(listener: Listener) -> None:
    """Let a listener hear of all work of this process from now on; one that does already is not added again."""
    global _listeners  # noqa: PLW0603 - the one state of this module
    if listener not in _listeners:
        _listeners = (*_listeners, listener)


def stop(listener: Listener) -> None:
    """Let a listener hear nothing any more."""
    global _listeners  # noqa: PLW0603 - as above
    _listeners = tuple(each for each in _listeners if each is not listener)


def is_on() -> bool:
    """Tell whether anybody listens: what it takes trouble to report is not worked out otherwise."""
    return bool(_listeners)


def _tell(report: Callable[[Listener], Any]) -> list[Any]:
    """Report to each listener, and return what they say. One that fails says nothing."""
    said = []
    for listener in _listeners:
        try:
            said.append(report(listener))
        except Exception:
            logger.exception("The listener %s failed", type(listener).__name__)
    return said


# ---------------------------------------------------------------- what is told to them


@dataclass
class Work:
    """A piece of work, from its beginning (it is made) to its end (it is left as a context manager).

    Attributes:
        kind: What it is.
        connection: The alias of its server.
        rows: The invocations that it is about, as far as they are known. More may be added while it lasts.
        size: How many invocations it takes together; None for one that is about a single one.
    """

    kind: Kind
    connection: str
    rows: list[Invocation] = field(default_factory=list)
    size: int | None = None
    _doing: list[Doing] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self._doing = [doing for doing in _tell(lambda listener: listener.begin(self)) if doing is not None]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        for doing in reversed(self._doing):
            try:
                doing.end(error)
            except Exception:
                logger.exception("A listener failed at the end of %s", self.kind)

    def about(self, rows: Iterable[Invocation]) -> None:
        """Name invocations that it turned out to be about."""
        self.rows.extend(rows)

    def headers(self) -> dict[str, str]:
        """Return the headers that let the trace go on in the handlers of what is recorded now."""
        headers: dict[str, str] = {}
        for doing in self._doing:
            try:
                headers.update(doing.headers())
            except Exception:
                logger.exception("A listener failed to tell the headers of its trace")
        return headers


class _Unheard(Work):
    """Work of which nobody wants to hear."""

    def __post_init__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def about(self, rows: Iterable[Invocation]) -> None:
        pass

    def headers(self) -> dict[str, str]:
        return {}


_UNHEARD: Final = _Unheard(Kind.SEND, "")


def work(kind: Kind, connection: str, rows: Iterable[Invocation] = (), *, size: int | None = None) -> Work:
    """Begin a piece of work. It ends when what is returned is left as a context manager.

    Args:
        kind: What it is.
        connection: The alias of its server.
        rows: The invocations that it is about.
        size: How many it takes together; None for one that is about a single one.
    """
    return Work(kind, connection, list(rows), size) if _listeners else _UNHEARD


def delivered(row: Invocation, seconds: float, error: Exception | None) -> None:
    """Report an attempt to hand a row to Restate that has just ended.

    Args:
        row: The row, as it was when it was claimed.
        seconds: How long it took.
        error: What came instead of an answer that settles the row.
    """
    if _listeners:
        _tell(lambda listener: listener.delivered(row, seconds, error))
        add(DELIVERY, seconds, connection=row.connection, result="ok" if error is None else type(error).__name__)


def add(instrument: Instrument, value: float, **labels: str) -> None:
    """Report a value of an instrument.

    Args:
        instrument: One of ``INSTRUMENTS``.
        value: What a counter grows by, or the value.
        labels: A value for each of the instrument's labels.
    """
    if _listeners:
        _tell(lambda listener: listener.add(instrument, value, labels))


def with_headers(own: dict[str, str], trace: Mapping[str, str], taken: Iterable[str] = ()) -> dict[str, str]:
    """Return an invocation's headers with those of its trace. What a caller or a setting says is left as it is.

    Args:
        own: The headers that the caller gave.
        trace: The headers of the trace.
        taken: Names of further headers that each request carries.
    """
    said = {name.lower() for name in (*own, *taken)}
    # The state belongs to the parent: it is not to be mixed with the parent of somebody else's trace.
    if "traceparent" in said:
        said.add("tracestate")
    return own | {name: value for name, value in trace.items() if name.lower() not in said}


def without_trace(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a row without those of its trace, for another one that is sent after its pattern."""
    names = {"traceparent", "tracestate"}.union(*_tell(lambda listener: listener.header_names()))
    return {name: value for name, value in headers.items() if name.lower() not in names}
