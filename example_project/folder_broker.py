"""Celery's broker in a folder, safe for a worker that reads while beat writes.

Kombu's own transport opens a message where the worker looks for it, and then fills it: a worker that looks between
the two takes an empty file away, cannot read it, and ends. Here a message is written beside, and then renamed.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kombu.transport import filesystem
from kombu.utils.json import dumps

if TYPE_CHECKING:
    from collections.abc import Iterator


def options(folder: Path) -> dict[str, str]:
    """Return ``broker_transport_options`` for a broker in a folder, and make the folder."""
    messages = folder / "messages"
    messages.mkdir(parents=True, exist_ok=True)
    return {
        "data_folder_in": str(messages),
        "data_folder_out": str(messages),
        "control_folder": str(folder / "control"),
    }


class Channel(filesystem.Channel):
    """A channel that writes a message whole, and its table of queues alone."""

    def _put(self, queue: str, payload: dict[str, Any], **_options: Any) -> None:
        message = Path(self.data_folder_out) / f"{time.monotonic_ns()}_{uuid.uuid4()}.{queue}.msg"
        # Kombu passes over a name that is not of this form.
        unfinished = message.with_name(f".{message.name}")
        unfinished.write_text(dumps(payload), encoding="utf-8")
        unfinished.replace(message)

    @contextlib.contextmanager
    def _table_of_queues(self) -> Iterator[None]:
        """Keep the table: kombu empties it before it asks for its lock."""
        folder = Path(self.control_folder)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            filesystem.lock(lock, filesystem.LOCK_EX)
            yield

    def get_table(self, exchange: str) -> list[filesystem.exchange_queue_t]:
        """Return the queues of an exchange."""
        with self._table_of_queues():
            return list(super().get_table(exchange))

    def _queue_bind(self, *binding: Any) -> None:
        with self._table_of_queues():
            super()._queue_bind(*binding)


class Transport(filesystem.Transport):
    """The transport for ``broker_transport``."""

    Channel = Channel
