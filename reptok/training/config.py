"""How to train; free of torch, so that to plan a workflow loads none of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from reptok.bounds import Count, Decay, Number, Positive, Share, Signed, Whole

TimeSampling = Literal["logit_normal", "uniform"]
Precision = Literal["float32", "bfloat16"]
Strategy = Literal["ddp", "fsdp"]
Recompute = Literal["none", "selective", "full"]
CompileMode = Literal["default", "max-autotune-no-cudagraphs"]
Launcher = Literal["process", "torchrun", "ray"]

PATIENT_SECONDS = 1800.0
"""How long processes wait for one that loads, compiles, evaluates or writes; in a step they wait less."""
ELASTIC_CHECKPOINT_SECONDS = 300.0
_FREE = {"significant": False}
_WHERE_SET = {"optional": True}
"""Of a field whose default changes nothing of what is made."""


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """How weights follow gradients.

    Attributes:
        lr: Learning rate after the warm-up.
        beta1: Decay of AdamW's first moment.
        beta2: Decay of AdamW's second moment.
        eps: AdamW's epsilon.
        weight_decay: Decoupled decay, of matrices alone (no norms, biases, embeddings).
        warmup_steps: Steps over which the learning rate rises linearly.
        schedule: What follows the warm-up: "constant"; "cosine" or "linear" down to `final_lr` at the last
            step; or "wsd" (warm-up, stable, decay), constant until the last `decay_steps` and then linear, so
            that how long a training is need not be known when it begins.
        decay_steps: Length of the decay of "wsd".
        final_lr: Where a decay ends, as a fraction of `lr`.
        grad_clip: Largest gradient norm; 0 clips nothing.
        cls_lr_scale: Factor on the learning rate of the `[cls]` embedding.
        mapping_lr_scale: Factor on that of the decoder's time mapping and of what it modulates; networks of
            this kind are often trained with 1/3.
    """

    lr: Positive = 1e-4
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    eps: Positive = 1e-8
    weight_decay: Number = 0.0
    warmup_steps: Whole = 2000
    schedule: Literal["constant", "cosine", "linear", "wsd"] = "constant"
    decay_steps: Whole = 0
    final_lr: Share = 0.0
    grad_clip: Number = 1.0
    cls_lr_scale: Number = 1.0
    mapping_lr_scale: Number = 1.0

    def __post_init__(self) -> None:
        if self.schedule == "wsd" and not self.decay_steps:
            raise ValueError("train.optim.schedule wsd needs train.optim.decay_steps, its last part")


@dataclass(frozen=True, kw_only=True)
class ProfileConfig:
    """Which steps are profiled, on the first process; the files go to the tracking server.

    Attributes:
        first: Step that the first window begins at; late enough that everything is compiled.
        every: Steps from one window to the next; 0 opens no window.
        windows: How many there are at most.
        steps: Steps of a window.
        memory: Note every allocation with the line of code that made it, too; a step then takes several
            times as long.
    """

    first: Whole = 20
    every: Whole = 0
    windows: Count = 1
    steps: Count = 3
    memory: bool = False

    def __post_init__(self) -> None:
        if 0 < self.every < self.steps:
            raise ValueError(
                f"train.profile.every {self.every} is less than the {self.steps} steps of a window; raise "
                "it, or lower train.profile.steps"
            )

    def begins(self, step: int) -> bool:
        """Whether a window begins at a step."""
        number, offset = divmod(step - self.first, max(1, self.every))
        return self.every > 0 and offset == 0 and 0 <= number < self.windows


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long and how to train.

    Fields whose metadata says `significant: False` may change between a run and its resumption. How the work
    is divided is among them (workers, strategy, accumulation, recomputation): a sum in another order rounds
    differently (about 1e-6), but every sample and every random number stays the same.

    Attributes:
        steps: Updates in all.
        batch_size: Samples of a step over all workers.
        optim: Optimiser and schedule.
        ema_decay: Of the averaged weights, which are the ones published.
        seed: Of order, mirroring, noise, times and dropout.
        time_sampling: Distribution of t; the authors train the decoder with logit-normal, the generator
            with uniform times.
        time_loc: Mean of the logit of logit-normal times; below 0 more of them lie at noise (t = 0), as a
            schedule that is shifted for large latents wants it.
        time_scale: Its standard deviation.
        precision: "float32", or "bfloat16" matrix products.
        flip: Mirror a random half of the samples.
        compile: Compile the network's blocks (torch.compile); pays on a GPU.
        compile_mode: Of torch.compile. "max-autotune-no-cudagraphs" tries several kernels for every product
            and takes minutes longer to begin.
        cuda_graphs: Record a step as a CUDA graph and replay it, for steps that are shorter than the host
            needs to launch them, as the mixer's; in one process on a GPU.
        recompute: What the backward pass computes again instead of keeping it: "none"; "selective", all but
            products and attention, which cost the time; "full", whole blocks from their inputs, a third
            more work for a fraction of the memory.
        accumulate: Parts that a process divides its share of a batch into, one forward and backward pass
            each, for batches that do not fit in memory.
        strategy: How several processes share the model: "ddp" gives each a copy, "fsdp" (FSDP2) a share of
            weights, gradients, moments and average, for models that do not fit on one GPU.
        shards: Workers that divide one copy of the model under "fsdp"; with fewer than all every so many have
            a copy (HSDP), and of it only gradients travel further. The GPUs of one machine, on several that
            a slower network joins; 0 is all workers.
        max_skipped: Steps in a row without a finite gradient after which the training gives up.
        log_every: Steps between two entries of the curves.
        norms_every: Steps between two looks at every layer: the norms of its gradient, weights and output,
            and the scales of its attention; 0 never looks.
        profile: Steps under torch.profiler.
        eval_every: Steps between two validations; 0 for none but the last.
        eval_samples: Validation samples that the validation loss is computed on.
        score_samples: Validation samples that are made at each validation and scored: the PSNR of
            reconstructions, the Frechet distance of generated tokens to real ones; 0 makes none.
        keep_every: Steps between two averages of the weights that stay with the finished model, so that each
            can be scored as the end is (`experiment=evaluate kept=true`); 0 keeps the end alone.
        checkpoint_every_seconds: Time between two checkpoints.
        step_timeout_seconds: How long processes wait for each other within a step before they give up, and
            go on from the newest checkpoint; after half of it the log names who is behind. To start, to
            evaluate and to write they have half an hour.
        keep_checkpoints: How many of the newest stay; 2 at least, so that a damaged one is no great loss.
        launcher: Who starts the processes: "process" one on this machine, at once, and does not start it
            again when it dies; "torchrun" any number on this machine, without Ray; "ray" on a cluster.
        workers: Training processes.
        min_workers: Start with so few when the cluster has no more, and grow and shrink with it up to
            `workers`; 0 waits for all of them. A change of their number begins at the newest checkpoint, so
            one is asked for every five minutes at least.
        max_failures_per_hour: How many deaths of its processes a training on a cluster survives in an hour,
            where those of machines that are taken away with a warning do not count.
        threads: CPUs, and CPU threads, of each process.
        gpus_per_worker: GPUs of each process.
        cache_images_bytes: Keep decoded images in memory when all of them fit.
        cache_disk_bytes: Of each machine's disk (below `REPTOK_CACHE`), for what is read of data on an object
            store: the windows in use at least; what more fits is not fetched again.
        window: Smallest number of samples shuffled together.
    """

    steps: Count
    batch_size: Count
    optim: OptimConfig = field(default_factory=OptimConfig)
    ema_decay: Decay = 0.9999
    seed: Whole = 0
    time_sampling: TimeSampling = "uniform"
    time_loc: Signed = 0.0
    time_scale: Positive = 1.0
    precision: Precision = "float32"
    flip: bool = True
    compile: bool = field(default=False, metadata=_FREE)
    compile_mode: CompileMode = field(default="default", metadata=_FREE)
    cuda_graphs: bool = field(default=False, metadata=_FREE)
    recompute: Recompute = field(default="none", metadata=_FREE)
    accumulate: Count = field(default=1, metadata=_FREE)
    strategy: Strategy = field(default="ddp", metadata=_FREE)
    shards: Whole = field(default=0, metadata=_FREE)
    max_skipped: Count = field(default=10, metadata=_FREE)
    log_every: Count = field(default=50, metadata=_FREE)
    norms_every: Whole = field(default=0, metadata=_FREE)
    profile: ProfileConfig = field(default_factory=ProfileConfig, metadata=_FREE)
    eval_every: Whole = field(default=1000, metadata=_FREE)
    eval_samples: Count = field(default=512, metadata=_FREE)
    score_samples: Whole = field(default=0, metadata=_FREE)
    keep_every: Whole = field(default=0, metadata=_WHERE_SET)
    checkpoint_every_seconds: Positive = field(default=600.0, metadata=_FREE)
    step_timeout_seconds: Positive = field(default=300.0, metadata=_FREE)
    keep_checkpoints: Count = field(default=2, metadata=_FREE)
    launcher: Launcher = field(default="ray", metadata=_FREE)
    workers: Count = field(default=1, metadata=_FREE)
    min_workers: Whole = field(default=0, metadata=_FREE)
    max_failures_per_hour: Whole = field(default=3, metadata=_FREE)
    threads: Count = field(default=1, metadata=_FREE)
    gpus_per_worker: Number = field(default=0.0, metadata=_FREE)
    cache_images_bytes: Whole = field(default=1 << 30, metadata=_FREE)
    cache_disk_bytes: Whole = field(default=64 << 30, metadata=_FREE)
    window: Count = 10_000

    def __post_init__(self) -> None:
        positive = (
            "steps", "batch_size", "threads", "accumulate", "max_skipped", "keep_checkpoints", "workers",
        )  # fmt: skip
        if small := [name for name in positive if getattr(self, name) < 1]:
            raise ValueError(f"train.{small[0]} must be at least 1, not {getattr(self, small[0])}")
        if self.time_sampling == "uniform" and (self.time_loc, self.time_scale) != (0.0, 1.0):
            raise ValueError(
                "train.time_loc and train.time_scale are of logit-normal times; set "
                "train.time_sampling=logit_normal, or leave them at 0 and 1"
            )
        optim = self.optim
        if optim.schedule == "wsd" and optim.warmup_steps + optim.decay_steps > self.steps:
            raise ValueError(
                f"train.optim.decay_steps {optim.decay_steps} after warmup_steps {optim.warmup_steps} do not "
                f"fit into train.steps {self.steps}; lower one of them"
            )
        if self.launcher == "process" and self.workers > 1:
            raise ValueError(
                f"train.launcher process is one process, and train.workers {self.workers}; set that to 1, or "
                "train.launcher to torchrun or ray"
            )
        if self.min_workers and self.launcher != "ray":
            raise ValueError(
                f"train.min_workers {self.min_workers} lets processes come and go, which train.launcher "
                f"{self.launcher} does not; set it to 0, or train.launcher to ray"
            )
        if not 0 <= self.min_workers <= self.workers:
            raise ValueError(
                f"train.min_workers {self.min_workers} must lie between 0 and train.workers {self.workers}"
            )
        if self.min_workers and self.checkpoint_every_seconds > ELASTIC_CHECKPOINT_SECONDS:
            raise ValueError(
                f"train.min_workers {self.min_workers} lets the number of workers change, and a change loses "
                f"what is younger than the newest checkpoint: set train.checkpoint_every_seconds to "
                f"{ELASTIC_CHECKPOINT_SECONDS:.0f} or less, not {self.checkpoint_every_seconds:.0f}"
            )
        if self.cuda_graphs and self.workers > 1:
            raise ValueError(
                f"train.cuda_graphs records the step of one process, and train.workers is {self.workers}; "
                "set it to false, or workers to 1"
            )
        if self.cuda_graphs and not self.gpus_per_worker:
            raise ValueError(
                "train.cuda_graphs records the step of a GPU, and train.gpus_per_worker is 0; set "
                "cuda_graphs to false, or device to cuda"
            )
        if self.compile_mode != "default" and not self.compile:
            raise ValueError(
                f"train.compile_mode {self.compile_mode} says how to compile, and train.compile is false; "
                "set it to true, or compile_mode to default"
            )
        if self.strategy == "fsdp" and self.workers < 2:
            raise ValueError(
                f"train.strategy fsdp shards the model among workers, and there is {self.workers}; "
                "leave it at ddp, or set train.workers to 2 or more"
            )
        if self.shards and self.strategy != "fsdp":
            raise ValueError(
                f"train.shards {self.shards} divides the model, and train.strategy {self.strategy} copies "
                "it; set shards to 0, or strategy to fsdp"
            )
        if self.shards and self.min_workers:
            raise ValueError(
                f"train.shards {self.shards} needs a fixed number of workers, and train.min_workers "
                f"{self.min_workers} lets it change; set one of them to 0"
            )
        if self.shards == 1 or (self.shards and self.workers % self.shards):
            raise ValueError(
                f"train.shards {self.shards} does not divide {self.workers} workers into copies of two or "
                "more each; set it to the GPUs of one machine, or to 0 to shard among all"
            )
        if self.workers > 1 and self.gpus_per_worker not in (0, 1):
            raise ValueError(
                f"train.gpus_per_worker {self.gpus_per_worker:g} with {self.workers} workers: each "
                "of several computes on one GPU of its own; set it to 1, or to 0 for the CPU"
            )
        if self.accumulate * self.workers > self.batch_size:
            raise ValueError(
                f"train.batch_size {self.batch_size} cannot be divided among {self.workers} workers in "
                f"{self.accumulate} parts each; lower train.workers or train.accumulate"
            )
