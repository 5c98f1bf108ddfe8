"""What a worker counts."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from ipam.model import Operation, OperationClass
from services.worker.buckets import Verdict

_CALL_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_WAIT_BUCKETS = (0.001, 0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120)


class WorkerMetrics:
    """Implements ipam.ports.OperationObserver and services.worker.budget.BudgetObserver."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._calls = Histogram(
            "plimsoll_cloud_api_duration_seconds",
            "Duration of calls to the cloud's API, by operation and outcome (ok, or the cloud's error code).",
            ["operation", "outcome"],
            buckets=_CALL_BUCKETS,
            registry=registry,
        )
        self._operations = Histogram(
            "plimsoll_worker_operation_duration_seconds",
            "Duration of what changes the cloud, by operation, subnet, and outcome (ok, or the kind of error).",
            ["operation", "subnet", "outcome"],
            buckets=_CALL_BUCKETS,
            registry=registry,
        )
        self._addresses = Counter(
            "plimsoll_worker_addresses",
            "Addresses that came (assign-addresses, create-interface) and went (unassign-addresses), by subnet.",
            ["operation", "subnet"],
            registry=registry,
        )
        self._waits = Histogram(
            "plimsoll_budget_wait_seconds",
            "Time that calls waited for the account's budget, by class; outcome is granted or refused.",
            ["operation_class", "outcome"],
            buckets=_WAIT_BUCKETS,
            registry=registry,
        )
        self._cuts = Counter(
            "plimsoll_budget_throttles",
            "Times that the rate was cut because the cloud throttled.",
            ["operation_class"],
            registry=registry,
        )
        self._rate = Gauge(
            "plimsoll_budget_rate",
            "Calls per second that the budget allows now, as this worker last saw it.",
            ["operation_class"],
            registry=registry,
        )
        self._waiting = Gauge(
            "plimsoll_budget_waiting",
            "Calls of all workers that wait for the budget, as this worker last saw it.",
            ["operation_class"],
            registry=registry,
        )
        self._shared = Gauge(
            "plimsoll_budget_shared",
            "1 while the budget is shared through Redis, 0 while this worker goes on alone.",
            registry=registry,
        )
        self._intents = Histogram(
            "plimsoll_worker_intent_duration_seconds",
            "Duration of tasks, by outcome: done, retry, give-up, or failed (the service could not be told).",
            ["outcome"],
            buckets=_WAIT_BUCKETS,
            registry=registry,
        )

    def __call__(self, operation: str, outcome: str, seconds: float) -> None:
        self._calls.labels(operation, outcome).observe(seconds)

    def mutated(self, operation: Operation, subnet_id: str, outcome: str, seconds: float, addresses: int) -> None:
        """Is an ipam.ports.StepObserver."""
        self._operations.labels(str(operation), subnet_id, outcome).observe(seconds)
        if addresses:
            self._addresses.labels(str(operation), subnet_id).inc(addresses)

    def waited(self, operation_class: OperationClass, seconds: float, *, granted: bool) -> None:
        self._waits.labels(str(operation_class), "granted" if granted else "refused").observe(seconds)

    def cut(self, operation_class: OperationClass) -> None:
        self._cuts.labels(str(operation_class)).inc()

    def seen(self, operation_class: OperationClass, verdict: Verdict, *, shared: bool) -> None:
        self._rate.labels(str(operation_class)).set(verdict.rate_per_s)
        self._waiting.labels(str(OperationClass.MUTATE)).set(verdict.waiting_mutate)
        self._waiting.labels(str(OperationClass.READ)).set(verdict.waiting_read)
        self._shared.set(int(shared))

    def performed(self, outcome: str, seconds: float) -> None:
        self._intents.labels(outcome).observe(seconds)
