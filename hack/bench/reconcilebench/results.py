"""What was measured, the medians of the rounds, and the aims they are held against."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

__all__ = ["AIM_PEAK_RSS_BYTES", "AIM_RATIO", "NEEDED", "Aim", "Half", "Idle", "OperatorHalf", "Result", "Round"]

AIM_RATIO = 1.5
AIM_PEAK_RSS_BYTES = 150_000_000
NEEDED: Mapping[tuple[str, str], str] = {
    ("deployments", "patch"): "Deployment",
    ("services", "patch"): "Service",
    ("llamamodels/status", "patch"): "status",
}
"""The writes that the end state needs, once per model, by (what, verb) in the audit log."""


@dataclass(frozen=True, kw_only=True)
class Half:
    """The floor's part of a round, or the operator's.

    Attributes:
        seconds: from the first request that created a model until every Deployment, Service and status was written.
        creating_seconds: from the first request that created a model to the last one.
        deployment_p50_sec, deployment_p99_sec: from a model's creation to its Deployment.
        cpu_sec: CPU seconds by process meanwhile; `others` is every process that is no part of the benchmark.
        load_before: load average of the last minute before it began.
    """

    seconds: float
    creating_seconds: float
    deployment_p50_sec: float
    deployment_p99_sec: float
    cpu_sec: Mapping[str, float]
    load_before: float

    @property
    def own_cpu_sec(self) -> float:
        """CPU seconds of all processes that took part, the benchmark's own included."""
        return sum(seconds for name, seconds in self.cpu_sec.items() if name != "others")


@dataclass(frozen=True, kw_only=True)
class OperatorHalf(Half):
    """The operator's part.

    Attributes:
        writes: by (what, verb) as the audit log has them, failed ones included, the Lease left out.
        failed_writes: how many of them the API server refused.
        passes: over a LlamaModel.
        peak_rss_bytes, end_rss_bytes: resident memory, at its highest and when all was written.
    """

    writes: Mapping[tuple[str, str], int]
    failed_writes: int
    passes: int
    peak_rss_bytes: int
    end_rss_bytes: int


@dataclass(frozen=True, kw_only=True)
class Round:
    """Both halves, back to back."""

    first: str
    floor: Half
    operator: OperatorHalf

    @property
    def ratio(self) -> float:
        return self.operator.seconds / self.floor.seconds

    @property
    def cpu_ratio(self) -> float:
        """The same of CPU seconds; other load on the machine changes it less."""
        return self.operator.own_cpu_sec / self.floor.own_cpu_sec


@dataclass(frozen=True, kw_only=True)
class Idle:
    """The operator with nothing to do.

    Attributes:
        writes: by (what, verb), the Lease left out.
        passes: over LlamaModels, from comparisons of the cache with the API server that fell into this time.
    """

    seconds: float
    writes: Mapping[tuple[str, str], int]
    lease_writes: int
    passes: int
    operator_cpu_sec: float
    peak_rss_bytes: int
    end_rss_bytes: int


@dataclass(frozen=True, kw_only=True)
class Aim:
    """One aim and what was found."""

    text: str
    found: str
    met: bool


@dataclass(frozen=True, kw_only=True)
class Result:
    """All rounds of a run."""

    models: int
    concurrency: int
    nice: int
    rounds: Sequence[Round]
    idle: Idle | None

    @property
    def ratio(self) -> float:
        """Median of the rounds' ratios."""
        return median(each.ratio for each in self.rounds)

    @property
    def peak_rss_bytes(self) -> int:
        """The highest of all rounds; only the last one has the idle time with its resyncs in it."""
        return max(each.operator.peak_rss_bytes for each in self.rounds)

    def writes_per_model(self, writes: tuple[str, str]) -> float:
        """Median over the rounds."""
        return median(each.operator.writes.get(writes, 0) for each in self.rounds) / self.models

    @property
    def needless_writes(self) -> float:
        """Median over the rounds of the writes beyond one Deployment, Service and status per model."""
        return median(
            sum(number - (self.models if key in NEEDED else 0) for key, number in each.operator.writes.items())
            for each in self.rounds
        )

    def aims(self) -> Sequence[Aim]:
        """Each aim, against the median of the rounds; memory against the worst."""
        return tuple(self._aims())

    def _aims(self) -> Iterable[Aim]:
        yield Aim(
            text=f"total time at most {AIM_RATIO} times the floor",
            found=f"{self.ratio:.2f}",
            met=self.ratio <= AIM_RATIO,
        )
        per_model = ", ".join(f"{kind} {self.writes_per_model(key):g}" for key, kind in NEEDED.items())
        yield Aim(
            text="writes per model: Deployment 1, Service 1, status 1, no other",
            found=f"{per_model}; others {self.needless_writes:g} in all",
            met=self.needless_writes == 0 and all(self.writes_per_model(key) == 1 for key in NEEDED),
        )
        yield Aim(
            text=f"peak RSS below {AIM_PEAK_RSS_BYTES / 1e6:.0f} MB in every round",
            found=f"{self.peak_rss_bytes / 1e6:.1f} MB",
            met=self.peak_rss_bytes < AIM_PEAK_RSS_BYTES,
        )
        if self.idle is not None:
            number = sum(self.idle.writes.values())
            yield Aim(
                text=f"no write in {self.idle.seconds:.0f} idle seconds, the Lease aside",
                found=str(number),
                met=number == 0,
            )

    def document(self) -> dict[str, Any]:
        """For `-o json`."""
        document: dict[str, Any] = _plain(asdict(self))
        for each, plain in zip(self.rounds, document["rounds"], strict=True):
            plain.update(ratio=round(each.ratio, 3), cpu_ratio=round(each.cpu_ratio, 3))
        return document | {
            "median": {
                "ratio": round(self.ratio, 3),
                "cpu_ratio": round(median(each.cpu_ratio for each in self.rounds), 3),
                "needless_writes": self.needless_writes,
            },
            "peak_rss_bytes": self.peak_rss_bytes,
            "aims": [asdict(aim) for aim in self.aims()],
        }


def _plain(value: Any) -> Any:
    """Tuples as keys become words, floats get a sensible length."""
    if isinstance(value, Mapping):
        return {" ".join(key) if isinstance(key, tuple) else key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value
