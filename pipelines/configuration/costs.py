"""What a workflow would take on a cluster that the configuration describes: hours, GPU-hours, bytes, money.

Arithmetic over planning figures; nothing is asked of a network or started. A stage is taken to fill the
cluster, and is as slow as the slower of its compute and its traffic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pipelines.dag.planner import PlannedStage
from reptok.bounds import Count, Number, Positive, Share, Whole


@dataclass(frozen=True, kw_only=True)
class StageRate:
    """How a stage spends time and storage.

    Attributes:
        rate: Rows a second of one unit.
        unit: What computes: "cpu" (a core) or "gpu".
        keep: Share of the rows that go on to the next stage.
        bytes_in: Bytes read per row, over the network.
        bytes_out: Bytes stored per row that goes on.
    """

    rate: Positive
    unit: Literal["cpu", "gpu"]
    keep: Share = 1.0
    bytes_in: Number = 0.0
    bytes_out: Number = 0.0

    def __post_init__(self) -> None:
        if self.rate <= 0 or not 0 < self.keep <= 1:
            raise ValueError(f"a rate must be above 0 and keep in (0, 1], got {self.rate} and {self.keep}")


@dataclass(frozen=True, kw_only=True)
class EstimateConfig:
    """The cluster, its prices, and the rates of the stages.

    Attributes:
        nodes: Machines.
        cpus_per_node: Cores of each.
        gpus_per_node: GPUs of each.
        network_gbit_per_node: What each can read, in Gbit/s.
        price_per_node_hour: Price of a machine.
        price_per_terabyte_month: Price of storage.
        currency: Of the prices.
        rows: Rows that enter the first stage.
        stages: Rates by the stage's name; a stage without one costs nothing.
    """

    nodes: Count
    cpus_per_node: Whole
    gpus_per_node: Whole
    network_gbit_per_node: Positive
    price_per_node_hour: Number = 0.0
    price_per_terabyte_month: Number = 0.0
    currency: str = "USD"
    rows: Count
    stages: Mapping[str, StageRate] = field(default_factory=dict)


@dataclass(frozen=True)
class Estimate:
    """One stage.

    Attributes:
        rows: Rows or samples that it works through.
        hours: Wall-clock time.
        gpu_hours: GPUs times time, for a stage that computes on them.
        bytes_read: Over the network.
        bytes_stored: In its artifact.
        cost: Of the machines for that time.
        bound: What it waits for: "cpu", "gpu" or "network".
    """

    rows: float
    hours: float
    gpu_hours: float
    bytes_read: float
    bytes_stored: float
    cost: float
    bound: str


def estimate(planned: Sequence[PlannedStage], config: EstimateConfig) -> dict[str, Estimate]:
    """Estimate every planned stage that has a rate, in order; a published one costs nothing and has rows."""
    rows_of: dict[str, float] = {}
    found: dict[str, Estimate] = {}
    for p in planned:
        before = [rows_of[kind] for kind in p.stage.inputs if kind in rows_of]
        passing = before[0] if before else float(config.rows)
        rate = config.stages.get(p.stage.name)
        rows_of[p.artifact.kind] = passing * (rate.keep if rate else 1.0)
        if rate is not None and p.action != "skip":
            found[p.stage.name] = _estimated(rate, _samples(p.stage.config, passing), config)
    return found


def totals(found: Mapping[str, Estimate], config: EstimateConfig) -> str:
    """One line: all hours one after the other, GPU-hours, storage, and what they cost."""
    hours, gpu_hours, cost = (
        sum(getattr(entry, name) for entry in found.values()) for name in ("hours", "gpu_hours", "cost")
    )
    stored = sum(entry.bytes_stored for entry in found.values())
    month = stored / 1e12 * config.price_per_terabyte_month
    return (
        f"on {config.nodes} nodes of {config.cpus_per_node} cores and {config.gpus_per_node} GPUs: "
        f"{hours:,.1f} h, {gpu_hours:,.0f} GPU-hours, {cost:,.0f} {config.currency}; "
        f"{amount(stored)} stored, {month:,.0f} {config.currency} a month (planning figures: conf/estimate)"
    )


def amount(count: float) -> str:
    """Bytes for a person: `1.2 TB`."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1000
    raise AssertionError


def _estimated(rate: StageRate, rows: float, config: EstimateConfig) -> Estimate:
    gpus = config.nodes * config.gpus_per_node
    units = gpus if rate.unit == "gpu" else config.nodes * config.cpus_per_node
    if units == 0:
        raise ValueError(f"estimate: a stage computes on a {rate.unit}, and the nodes have none")
    compute = rows / (rate.rate * units) / 3600
    traffic = rows * rate.bytes_in * 8 / (config.network_gbit_per_node * 1e9 * config.nodes) / 3600
    hours = max(compute, traffic)
    return Estimate(
        rows=rows,
        hours=hours,
        gpu_hours=hours * gpus if rate.unit == "gpu" else 0.0,
        bytes_read=rows * rate.bytes_in,
        bytes_stored=rows * rate.keep * rate.bytes_out,
        cost=hours * config.nodes * config.price_per_node_hour,
        bound=rate.unit if compute >= traffic else "network",
    )


def _samples(config: Any, passing: float) -> float:
    """Samples that a stage works through: its training's, its evaluation's, or the rows that come in."""
    train = getattr(config, "train", None)
    if train is not None:
        return float(train.steps * train.batch_size)
    for name in ("images", "samples"):
        if isinstance(wanted := getattr(config, name, None), int):
            return float(wanted)
    return passing
