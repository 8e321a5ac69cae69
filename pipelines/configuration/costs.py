"""What a workflow would take on a cluster that the configuration describes: hours, GPU-hours, bytes, money.

Arithmetic over planning figures; nothing is asked of a network or started. A stage computes on what its
workers occupy, and is as slow as the slower of its compute and its traffic.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pipelines.dag.chain import may_follow
from pipelines.dag.planner import PlannedStage
from pipelines.dag.pools import room
from pipelines.dag.shards import WorkerResources
from pipelines.dag.stage import Stage
from reptok.bounds import Count, Number, Positive, Share, Whole


@dataclass(frozen=True, kw_only=True)
class StageRate:
    """How a stage spends time and storage.

    Attributes:
        rate: Rows a second of one unit.
        source: Who measured it, or what it follows from.
        unit: What computes: "cpu" (a core) or "gpu".
        keep: Share of the rows that go on to the next stage.
        bytes_in: Bytes read per row, over the network.
        bytes_out: Bytes stored per row that goes on.
    """

    rate: Positive
    source: str
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
        units: Cores or GPUs that its workers occupy, of those that the cluster has.
    """

    rows: float
    hours: float
    gpu_hours: float
    bytes_read: float
    bytes_stored: float
    cost: float
    bound: str
    units: float


def estimate(planned: Sequence[PlannedStage], config: EstimateConfig) -> dict[str, Estimate]:
    """Estimate every planned stage that has a rate, in order; a published one costs nothing and has rows.

    So do captions that come with the pictures: a rate is one of GPUs, and a stage that occupies none is not
    what was measured.

    Raises:
        ValueError: A stage computes on what the nodes have none of.
    """
    rows_of: dict[str, float] = {}
    found: dict[str, Estimate] = {}
    for p in planned:
        before = [rows_of[kind] for kind in p.stage.inputs if kind in rows_of]
        passing = min(before) if before else float(config.rows)
        rate = config.stages.get(p.stage.name)
        keep = rate.keep if rate else 1.0
        if limit := _limit(p.stage.config):
            passing = min(passing, limit / keep)
        rows_of[p.artifact.kind] = passing * keep
        if rate is None or p.action == "skip":
            continue
        if units := _units(p.stage, rate, config):
            rows, share = _samples(p.stage.config, passing), _share(p.stage.config)
            found[p.stage.name] = _estimated(rate, rows, share, units, config)
    return found


def totals(
    planned: Sequence[PlannedStage], found: Mapping[str, Estimate], config: EstimateConfig, chain: bool
) -> str:
    """One line: hours, GPU-hours, storage, and what they cost.

    Args:
        planned: The stages.
        found: Their estimates.
        config: The cluster.
        chain: Whether stages that work shard by shard go on with each shard as it comes. They then take at
            least as long as the longest of them, and as all their work on the same cores, GPUs and wires.
    """
    alone = sum(entry.hours for entry in found.values())
    hours = sum(_together([found[name] for name in part], config) for part in _parts(planned, found, chain))
    gpu_hours = sum(entry.gpu_hours for entry in found.values())
    stored = sum(entry.bytes_stored for entry in found.values())
    month = stored / 1e12 * config.price_per_terabyte_month
    apart = f" ({alone:,.1f} h one stage after the other)" if hours < alone else ""
    return (
        f"on {config.nodes} nodes of {config.cpus_per_node} cores and {config.gpus_per_node} GPUs: at least "
        f"{hours:,.1f} h{apart}, {gpu_hours:,.0f} GPU-hours, "
        f"{hours * config.nodes * config.price_per_node_hour:,.0f} {config.currency}; "
        f"{amount(stored)} stored, {month:,.0f} {config.currency} a month (planning figures: conf/estimate)"
    )


def sources(found: Mapping[str, Estimate], config: EstimateConfig) -> list[str]:
    """A line for each estimated stage: its rate, and who says so."""
    lines = []
    for name in found:
        rate = config.stages[name]
        unit = "core" if rate.unit == "cpu" else "GPU"
        lines.append(f"{name}: {rate.rate:,g} rows/s a {unit}; {rate.source}")
    return lines


def _parts(
    planned: Sequence[PlannedStage], found: Mapping[str, Estimate], chain: bool
) -> Iterator[list[str]]:
    """The stages that have estimates, in groups that work at the same time."""
    group: list[PlannedStage] = []
    for p in planned:
        if p.action == "skip":
            continue
        if group and chain and may_follow(group[0], ()) and may_follow(p, group):
            group.append(p)
            continue
        yield [member.stage.name for member in group if member.stage.name in found]
        group = [p]
    yield [member.stage.name for member in group if member.stage.name in found]


def _together(entries: Sequence[Estimate], config: EstimateConfig) -> float:
    """Hours that stages take at the same time, at least."""
    cores = sum(entry.hours * entry.units for entry in entries if entry.bound == "cpu")
    wires = sum(entry.bytes_read for entry in entries) * 8 / _bits_an_hour(config)
    longest = max((entry.hours for entry in entries), default=0.0)
    gpus = sum(entry.gpu_hours for entry in entries)
    shares = [(cores, config.nodes * config.cpus_per_node), (gpus, config.nodes * config.gpus_per_node)]
    return max(longest, wires, *(work / there for work, there in shares if there))


def _bits_an_hour(config: EstimateConfig) -> float:
    return config.network_gbit_per_node * 1e9 * config.nodes * 3600


def amount(count: float) -> str:
    """Bytes for a person: `1.2 TB`."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1000
    raise AssertionError


def _units(stage: Stage, rate: StageRate, config: EstimateConfig) -> float:
    """Cores or GPUs that a stage computes on: its workers', as far as the cluster has them."""
    need = stage.resources
    there = config.gpus_per_node if rate.unit == "gpu" else config.cpus_per_node
    own = need.gpus if rate.unit == "gpu" else need.cpus
    if not there:
        raise ValueError(f"estimate: {stage.name} computes on a {rate.unit}, and the nodes have none")
    if need.elastic:
        node = (float(config.cpus_per_node), float(config.gpus_per_node))
        own *= room(WorkerResources(cpus=need.cpus, gpus=need.gpus), [node] * config.nodes)
    return min(own, float(config.nodes * there))


def _estimated(rate: StageRate, rows: float, share: float, units: float, config: EstimateConfig) -> Estimate:
    compute = rows * share / (rate.rate * units) / 3600
    traffic = rows * rate.bytes_in * 8 / _bits_an_hour(config)
    hours = max(compute, traffic)
    return Estimate(
        rows=rows,
        hours=hours,
        gpu_hours=hours * units if rate.unit == "gpu" else 0.0,
        bytes_read=rows * rate.bytes_in,
        bytes_stored=rows * rate.keep * rate.bytes_out,
        cost=hours * config.nodes * config.price_per_node_hour,
        bound=rate.unit if compute >= traffic else "network",
        units=units,
    )


def _limit(config: Any) -> int | None:
    """The number of rows that are enough for a stage: captions, or downloaded images."""
    limit = getattr(getattr(config, "captioner", config), "limit_samples", None)
    return limit if isinstance(limit, int) else None


def _share(config: Any) -> float:
    """The share of rows that the model of a stage looks at: of a captioner's, what its mix draws.

    It also looks at what has no alt-text, a share that nobody knows before.
    """
    captioner = getattr(config, "captioner", None)
    return 1.0 if captioner is None else float(captioner.mix)


def _samples(config: Any, passing: float) -> float:
    """Samples that a stage works through: its training's, its evaluation's, or the rows that come in."""
    train = getattr(config, "train", None)
    if train is not None:
        return float(train.steps * train.batch_size)
    for name in ("images", "samples"):
        if isinstance(wanted := getattr(config, name, None), int):
            return float(wanted)
    return passing
