"""The metrics: those of the work as it is done, and a collector that asks the databases when somebody looks.

With ``PROMETHEUS_MULTIPROC_DIR`` the first are those of all processes that share the folder. The databases are the same
to all of them, so the collector belongs to whoever answers.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from restate_django import gauges
from restate_django.measuring import BUCKETS, INSTRUMENTS, Instrument, Listener, Shape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from prometheus_client import Metric


class Metrics(Listener):
    """Keeps the values of this process.

    Args:
        registry: Where they are found.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._take = {each: _recorder(each, registry) for each in INSTRUMENTS}

    def add(self, instrument: Instrument, value: float, labels: Mapping[str, str]) -> None:
        """Take a value."""
        self._take[instrument](value, labels)


def _recorder(instrument: Instrument, registry: CollectorRegistry) -> Callable[[float, Mapping[str, str]], None]:
    """Make a metric, and return what takes its values."""
    name, told, labels = instrument.prometheus_name, instrument.help, instrument.labels
    if instrument.shape is Shape.COUNTER:
        counter = Counter(name, told, labels, registry=registry)
        return lambda value, own: counter.labels(**own).inc(value)
    if instrument.shape is Shape.GAUGE:
        gauge = Gauge(name, told, labels, registry=registry, multiprocess_mode="max")
        return lambda value, own: gauge.labels(**own).set(value)
    histogram = Histogram(name, told, labels, registry=registry, buckets=BUCKETS)
    return lambda value, own: histogram.labels(**own).observe(value)


class Databases(Collector):
    """Asks the swept databases whenever metrics are read: a few queries each, of bounded parts of an index."""

    def describe(self) -> Iterable[Metric]:
        """Return the metrics without a value: to register them asks no database."""
        return list(self._families().values())

    def collect(self) -> Iterable[Metric]:
        """Return the metrics with their values."""
        families = self._families()
        for reading in gauges.lately():
            families[reading.gauge].add_metric([reading.labels[name] for name in reading.gauge.labels], reading.value)
        return list(families.values())

    def _families(self) -> dict[Instrument, GaugeMetricFamily]:
        return {
            gauge: GaugeMetricFamily(gauge.prometheus_name, gauge.help, labels=gauge.labels) for gauge in gauges.GAUGES
        }


def registry() -> CollectorRegistry:
    """Return what is to be shown: the default registry, or that of all processes that share a folder."""
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return REGISTRY
    shared = CollectorRegistry()
    MultiProcessCollector(shared)  # type: ignore[no-untyped-call] # it is not typed
    shared.register(_databases)
    return shared


_databases: Final = Databases()
REGISTRY.register(_databases)
listener: Final = Metrics()
