"""Metrics of a server, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from tfgad.scores.drift import LEAST, QUANTITIES, Quantity
from tfgad.serving.server.limits import Admission
from tfgad.serving.server.repository import Repository

PATH = "/monitoring/prometheus/metrics"  # TF Serving's
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"  # of Prometheus' text format
# From one small tile to many requests in a queue, in steps of about two.
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
UNKNOWN = ""  # label of unknown models: clients could invent any number of names


class Metrics:
    """Counters of one server, in a registry of their own.

    Args:
        admission: counter of the requests in progress.
    """

    def __init__(self, admission: Admission):
        self._registry = CollectorRegistry()
        self._models: Repository | None = None
        self._requests = Counter(
            "tfgad_serving_requests",
            "Requests answered.",
            ["api", "method", "model", "code"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "tfgad_serving_request_seconds",
            "Time from a request to its answer.",
            ["api", "method", "model"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self._batches = Histogram(
            "tfgad_serving_batch_rows",
            "Rows of each run of a model.",
            ["model", "signature"],
            buckets=ROWS,
            registry=self._registry,
        )
        self._version = self._gauge("version", "Version in service.", ["model"])
        self._queued = self._gauge("queued_rows", "Rows that wait for a run.", ["model"])
        in_progress = self._gauge("requests_in_progress", "Requests in progress.", [])
        in_progress.set_function(lambda: admission.in_progress)

    def observe_models(self, models: Repository) -> None:
        """Sets the models to report."""
        self._models = models
        self._registry.register(_Scores(models))

    def request(self, api: str, method: str, model: str, code: str, seconds: float) -> None:
        """Counts a request.

        Args:
            api: `REST` or `gRPC`.
            method: such as `Predict`.
            model: the model that it named.
            code: a gRPC status code, such as `OK`.
            seconds: its duration.
        """
        known = model if self._models and model in self._models.names() else UNKNOWN
        self._requests.labels(api, method, known, code).inc()
        self._seconds.labels(api, method, known).observe(seconds)

    def batch(self, model: str, signature: str, rows: int) -> None:
        """Counts a run of a model."""
        self._batches.labels(model, signature).observe(rows)

    def page(self) -> bytes:
        """Returns all metrics in Prometheus' text format."""
        self._version.clear()
        self._queued.clear()
        if self._models is not None:
            for name in self._models.names():
                self._queued.labels(name).set(self._models.queued_rows(name))
                self._version.labels(name).set(self._models.version(name))
        return generate_latest(self._registry)

    def _gauge(self, name: str, meaning: str, labels: Sequence[str]) -> Gauge:
        return Gauge(f"tfgad_serving_{name}", meaning, labels, registry=self._registry)


class _Scores(Collector):
    """The metrics of scores. Their buckets differ from model to model."""

    def __init__(self, models: Repository):
        self._models = models

    def collect(self) -> Iterator[Metric]:
        histogram = HistogramMetricFamily(
            "tfgad_serving_score",
            "Anomaly scores of requests. The buckets end at the threshold and the deciles of the "
            "calibration scores.",
            labels=["model"],
        )
        images = CounterMetricFamily(
            "tfgad_serving_images",
            "Images of requests, by verdict: good or defective.",
            labels=["model", "verdict"],
        )
        drifts = {each: self._drift_of(each) for each in QUANTITIES}
        ranks = {each: self._rank_of(each) for each in QUANTITIES}
        for name in self._models.names():
            scores = self._models.scores(name)
            if scores is not None:
                histogram.add_metric([name], *scores.histogram())
                for verdict, count in scores.verdicts().items():
                    images.add_metric([name, verdict], count)
                drifted = {each.quantity for each in scores.drifts}
                for quantity in QUANTITIES:
                    # Nothing compared, no sample: 0 and 0.5 would look like a healthy model.
                    if (mean_rank := scores.rank(quantity)) is not None:
                        drifts[quantity].add_metric([name], float(quantity in drifted))
                        ranks[quantity].add_metric([name], mean_rank)
        yield from (histogram, images, *drifts.values(), *ranks.values())

    @staticmethod
    def _drift_of(quantity: Quantity) -> GaugeMetricFamily:
        return GaugeMetricFamily(
            f"tfgad_serving_{quantity.name}_drift",
            f"1 if the {quantity.name} of recent images differs from that of calibration, else 0. "
            f"Absent before {LEAST} images were compared.",
            labels=["model"],
        )

    @staticmethod
    def _rank_of(quantity: Quantity) -> GaugeMetricFamily:
        return GaugeMetricFamily(
            f"tfgad_serving_{quantity.name}_rank",
            f"Mean rank of the last {LEAST} images by their {quantity.name} among those of "
            f"calibration, from 0 to 1; 0.5 if they are alike. Absent before {LEAST} images were "
            "compared.",
            labels=["model"],
        )
