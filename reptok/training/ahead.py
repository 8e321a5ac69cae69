"""What a step needs, made while the one before it computes: captions' states on a stream of their own."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from typing import Any, cast

import torch
from torch import Tensor


def one_ahead(
    batches: Iterator[Any], prepare: Callable[[Any], Any], device: torch.device
) -> Generator[Any, None, None]:
    """Yield every batch prepared; the next one is being prepared in a thread while one is in use.

    On a GPU the work goes to a stream of its own, and who takes a batch waits for it on the device alone.

    Args:
        batches: Closed with this generator.
        prepare: Makes of a batch what the step is called with; its result lists what it made in `tensors()`.
        device: Where it computes.
    """
    on_gpu = device.type == "cuda"
    stream = torch.cuda.Stream(device) if on_gpu else None

    def work(batch: Any) -> tuple[Any, torch.cuda.Event | None]:
        with torch.cuda.stream(stream) if stream is not None else nullcontext():
            made = prepare(batch)
            return made, stream.record_event() if stream is not None else None

    def ready(future: Future[tuple[Any, torch.cuda.Event | None]]) -> Any:
        made, event = future.result()
        if event is not None:
            now = torch.cuda.current_stream(device)
            now.wait_event(event)
            for tensor in cast(list[Tensor], made.tensors()):
                tensor.record_stream(now)  # or its memory would be given to the next batch too early
        return made

    with closing(cast(Any, batches)), ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        coming = thread.submit(work, next(batches))
        for batch in batches:
            current, coming = coming, thread.submit(work, batch)
            yield ready(current)
        yield ready(coming)
