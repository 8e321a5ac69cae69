"""What the workers of a download share on a cluster: a budget of turns, and on each machine what names mean.

A worker that is alone needs neither.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pipelines.crawl.budget import Asked, Budget, Given
from pipelines.crawl.limits import FetchConfig
from pipelines.crawl.names import Names, system_lookup


class SharedBudget:
    """A budget in an actor, for all workers that have this handle.

    Args:
        actor: of `Budget`.
    """

    remote = True

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    async def take(self, asked: Sequence[Asked]) -> list[Given]:
        """See `Budget`; where the actor's delays begin, its answer has not yet arrived."""
        given: list[Given] = await self._actor.take.remote(asked)
        return given

    async def slow(self, host: str, seconds: float) -> None:
        """See `Budget`."""
        await self._actor.slow.remote(host, seconds)

    async def pause(self, host: str, seconds: float) -> None:
        """See `Budget`."""
        await self._actor.pause.remote(host, seconds)


@contextmanager
def shared_budget(config: FetchConfig) -> Iterator[SharedBudget]:
    """A budget beside the driver, whose end is the download's end anyway."""
    import ray

    actor = ray.remote(num_cpus=0, scheduling_strategy=_here())(Budget).remote(config)
    try:
        yield SharedBudget(actor)
    finally:
        ray.kill(actor)


class NodeNames:
    """A lookup that asks this machine's cache, which the first worker that needs it starts."""

    def __init__(self) -> None:
        self._actor: Any = None

    async def __call__(self, host: str, port: int) -> list[str]:
        """The addresses of a name.

        Raises:
            OSError: it has none.
        """
        import ray

        for _ in range(2):
            try:
                self._actor = self._actor or _names_actor()
                found = await self._actor.addresses.remote(host, port)
            except ray.exceptions.RayActorError:  # it ended with the worker that had started it
                self._actor = None
                continue
            if isinstance(found, str):
                raise OSError(found)
            return list(found)
        return await system_lookup(host, port)


class _NamesActor:
    """Names, looked up for all workers of a machine."""

    def __init__(self) -> None:
        self._names = Names()

    async def addresses(self, host: str, port: int) -> list[str] | str:
        """The addresses, or why there are none."""
        try:
            return await self._names.resolve(host, port)
        except OSError as error:
            return str(error) or type(error).__name__


def _names_actor() -> Any:
    import ray

    node = ray.get_runtime_context().get_node_id()
    options = {"name": f"names-{node}", "get_if_exists": True, "max_concurrency": 1000}
    return ray.remote(num_cpus=0, scheduling_strategy=_here(), **options)(_NamesActor).remote()


def _here() -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
