"""Notes that the processes of one Ray cluster leave for each other, in the table of its head.

They cost no request to the storage, are there when the process that left them is not, and end with the
cluster: whatever must outlive that is on the storage.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

NAMESPACE = "reptok"


class Notes(MutableMapping[str, str]):
    """Texts by name, of one topic; picklable, so that workers have them too.

    Args:
        topic: whatever others do not write about.
    """

    def __init__(self, topic: str) -> None:
        self._topic = f"{topic}/"

    def __getitem__(self, name: str) -> str:
        found = _table()._internal_kv_get(self._topic + name, namespace=NAMESPACE)
        if found is None:
            raise KeyError(name)
        return str(found.decode())

    def __setitem__(self, name: str, text: str) -> None:
        _table()._internal_kv_put(self._topic + name, text, overwrite=True, namespace=NAMESPACE)

    def __delitem__(self, name: str) -> None:
        _table()._internal_kv_del(self._topic + name, namespace=NAMESPACE)

    def __iter__(self) -> Iterator[str]:
        found = _table()._internal_kv_list(self._topic, namespace=NAMESPACE)
        return iter(sorted(name.decode().removeprefix(self._topic) for name in found))

    def clear(self) -> None:
        """Remove all of them at once."""
        _table()._internal_kv_del(self._topic, del_by_prefix=True, namespace=NAMESPACE)

    def __len__(self) -> int:
        return len(list(iter(self)))


def _table() -> Any:
    from ray.experimental import internal_kv

    return internal_kv
