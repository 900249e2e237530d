"""From shared figures to what Prometheus reads: those of one process, or of several as if they were one."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from mmap import mmap
from typing import TYPE_CHECKING, Any, TypeAlias

from ..events import Metadata
from .families import FAMILIES, Family, joined
from .shared_figures import Series, read

if TYPE_CHECKING:
    from prometheus_client import Metric
    from prometheus_client.core import Exemplar

Examples: TypeAlias = dict[Series, dict[int, tuple[float, Metadata]]]
"""Of each histogram and bucket the last value and the event it was measured with."""

_EXEMPLAR_LIMIT = 128  # characters of names and values, by the OpenMetrics specification


def metrics_of(memories: Iterable[mmap], examples: Examples | None = None) -> "Iterator[Metric]":
    """Return every family, those without a series included."""
    read_values: dict[str, dict[Series, list[tuple[float, ...]]]] = defaultdict(lambda: defaultdict(list))
    for memory in memories:
        for series, values in read(memory):
            read_values[series[0]][series].append(values)
    for family in FAMILIES:
        metric = _metric(family)
        for series, figures in read_values[family.name].items():
            values = joined(family, figures)
            if family.kind == "histogram":
                buckets = _buckets(family, values, (examples or {}).get(series, {}))
                metric.add_metric(series[1:], buckets=buckets, sum_value=values[-1])
            else:
                metric.add_metric(series[1:], values[0])
        yield metric


def _metric(family: Family) -> Any:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

    makes = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}
    return makes[family.kind](family.name, family.help, labels=family.labels)


def _buckets(
    family: Family, values: tuple[float, ...], examples: Mapping[int, tuple[float, Metadata]]
) -> list["tuple[str, float] | tuple[str, float, Exemplar]"]:
    bounds = [*(f"{bound:g}" if bound < 1 else f"{bound:.1f}" for bound in family.buckets), "+Inf"]
    buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
    for index, (bound, count) in enumerate(zip(bounds, accumulate(values[:-1]), strict=True)):
        example = examples.get(index)
        buckets.append((bound, count) if example is None else (bound, count, _exemplar(*example)))
    return buckets


def _exemplar(value: float, metadata: Metadata) -> "Exemplar":
    from prometheus_client.core import Exemplar

    labels = {}
    if metadata.traceparent is not None and len(parts := metadata.traceparent.split("-")) == 4:
        labels["trace_id"] = parts[1][:32]
    if len("trace_idevent_id") + 32 + len(metadata.event_id) <= _EXEMPLAR_LIMIT:
        labels["event_id"] = metadata.event_id
    return Exemplar(labels, value)
