"""The instruments: those of the work as it is done, and those of the databases, which are asked on each export."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import metrics
from opentelemetry.metrics import Observation

from restate_django import __version__, gauges
from restate_django.measuring import BUCKETS, INSTRUMENTS, Instrument, Listener, Shape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from opentelemetry.metrics import CallbackOptions, Meter


class Metrics(Listener):
    """Hands values to OpenTelemetry.

    Args:
        meter: What makes the instruments; that of the project's provider by default.
    """

    def __init__(self, meter: Meter | None = None) -> None:
        # A proxy, as the tracer: the provider may be set up later.
        meter = meter or metrics.get_meter("restate_django", __version__)
        self._take = {each: _recorder(meter, each) for each in INSTRUMENTS}
        for gauge in gauges.GAUGES:
            meter.create_observable_gauge(
                gauge.full_name, callbacks=[partial(_observe, gauge)], unit=gauge.unit, description=gauge.help
            )

    def add(self, instrument: Instrument, value: float, labels: Mapping[str, str]) -> None:
        """Take a value."""
        self._take[instrument](value, labels)


def _recorder(meter: Meter, instrument: Instrument) -> Callable[[float, Mapping[str, str]], Any]:
    """Make an instrument, and return what takes its values."""
    told: Any = {"unit": instrument.unit, "description": instrument.help}
    if instrument.shape is Shape.COUNTER:
        return meter.create_counter(instrument.full_name, **told).add
    if instrument.shape is Shape.GAUGE:
        return meter.create_gauge(instrument.full_name, **told).set
    histogram = meter.create_histogram(instrument.full_name, **told, explicit_bucket_boundaries_advisory=BUCKETS)
    return histogram.record


def _observe(gauge: Instrument, _options: CallbackOptions) -> Iterable[Observation]:
    """Return a gauge's values. The reader asks for one gauge after the other: the databases are asked once for all."""

    def observations() -> Iterator[Observation]:
        for reading in gauges.lately():
            if reading.gauge is gauge:
                yield Observation(reading.value, reading.labels)

    return list(observations())


listener: Final = Metrics()
