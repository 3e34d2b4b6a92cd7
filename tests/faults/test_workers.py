"""Two relays, four Celery workers and two beats at once over the same rows, and a broker that is lost in between.

It is cut off from everybody and comes back empty, as one that was restarted and had kept nothing.
"""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import kombu

from restate_django import send_many
from restate_django.models import Invocation
from tests.faults import rows
from tests.faults.arena import Arena, bitten_by
from tests.faults.proxy import LOOPBACK, PASS, Gate, Plan, TcpProxy
from tests.faults.scale import PATIENCE, SHARED_ROWS
from tests.require import require
from tests.wait import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from restate_django.testing.process import ChildProcess

NO_LEASE = "no lease + a new key per attempt"


#: Who sends: two relays, and four Celery workers.
SENDERS: Final = 6
#: What one of them gets to do before all are at work: no more than it sends at once.
PORTION: Final = 5
#: So few are given to the workers one by one.
FEW: Final = 5


@dataclass
class Broker:
    """A broker that a test can take away.

    Attributes:
        url: Where the test itself finds it.
        env: The environment of processes that use it, through a wire that can be cut, with a queue of the test's own.
    """

    url: str
    queue: str
    env: dict[str, str]
    wire: TcpProxy

    def stop(self) -> None:
        """Let its clients see what they see of one that is restarted and has lost all: it is gone, its queue as well.

        It is a service of the machine, which others use: it can't be ended.
        """
        self.wire.cut()
        with kombu.Connection(self.url) as connection:
            if self.url.startswith("redis"):
                client = connection.default_channel.client
                for key in client.scan_iter(f"{self.queue}*"):
                    client.delete(key)
            else:
                connection.default_channel.queue_delete(self.queue)
                connection.default_channel.exchange_delete(self.queue)

    def start(self) -> None:
        """Let it be there again."""
        self.wire.mend()


@contextlib.contextmanager
def broker(url: str, port: int) -> Iterator[Broker]:
    """Yield a broker, if the machine has it."""
    name = f"faults-{secrets.token_hex(4)}"
    own_url = url.format(port=port)
    try:
        with kombu.Connection(own_url, connect_timeout=2) as connection:
            connection.ensure_connection(max_retries=1, timeout=2)
    except (OSError, kombu.exceptions.OperationalError, ImportError) as error:
        require(condition=False, reason=f"there is no broker at {own_url}: {error}")
    wire = TcpProxy(LOOPBACK, port)
    found = Broker(own_url, name, {"FAULTS_BROKER": url.format(port=wire.port), "FAULTS_QUEUE": name}, wire)
    try:
        yield found
    finally:
        # Nothing is left of the queue.
        found.stop()
        wire.close()


def start_everybody(arena: Arena, env: dict[str, str]) -> None:
    """Start two relays, two beats and four workers, and wait until each is at it."""
    ready: list[tuple[ChildProcess, str]] = []
    for number in (1, 2):
        ready.append((arena.start_relay(), "restate_relay runs"))
        schedule = str(arena.folder / f"beat-{number}")
        beat = arena.start("celery", "beat", "--schedule", schedule, "--pidfile=", "-l", "INFO", env=env)
        ready.append((beat, "beat: Starting"))
    for number in (1, 2, 3, 4):
        options = ("-l", "INFO", "--without-gossip", "--without-mingle", "--without-heartbeat")
        node = ("worker", "--pool", "solo", "--hostname", f"node-{number}@faults")
        ready.append((arena.start("celery", *node, *options, env=env), "ready."))
    for victim, text in ready:
        arena.wait_until_logged(victim, text)


def occupy(arena: Arena, first: int, senders: int) -> Gate:
    """Let so many of them be at work at once: each has a portion of the rows in hand, and its answers are held.

    Who waits for answers takes no more, so each portion is another's.

    Args:
        arena: Where.
        first: The first order that is recorded.
        senders: How many.
    """
    gate = arena.hold_answers()
    for number in range(1, senders + 1):
        send_many(rows.outgoing(name) for name in rows.names(arena.prefix, first + number * PORTION)[-PORTION:])
        gate.wait_for(number * PORTION)
    return gate


def all_at_once(arena: Arena, url: str, port: int, title: str) -> None:
    """Let everybody at the same rows, take the broker away while all are at work, and bring it back, empty."""
    # Nobody's time is over while answers are held.
    arena.connection |= {"TIMEOUT": 60.0, "LEASE": 180.0}
    arena.use_directly()
    arena.number = SENDERS * PORTION if arena.mutant else SHARED_ROWS
    with broker(url, port) as found:
        start_everybody(arena, found.env)
        everybody = list(arena.victims)
        gate = occupy(arena, 0, SENDERS)
        if not arena.mutant:
            # The mutants' six have long done the harm: each has the first one's rows in hand.
            found.stop()
        gate.open()
        if not arena.mutant:
            without_a_broker_and_with_it(arena, found)
        assert all(victim.running for victim in everybody), [victim.log_tail() for victim in everybody]
        wait_for(lambda: not Invocation.objects.unsent().exists(), timeout=PATIENCE, what="all rows to be sent")
        arena.wait_until_idle()
        arena.judge(title)


def without_a_broker_and_with_it(arena: Arena, found: Broker) -> None:
    """Let views send while the broker is away, wait until the workers are back at work with it, and send the rest."""
    # Slow enough for all of them to be at it together.
    arena.ingress.rule = lambda request: Plan(delay=0.05) if request.is_send else PASS
    # Two relays and one more: a worker is back.
    back = 3 * PORTION
    start = SENDERS * PORTION
    middle = (start + arena.number - back) // 2
    last = arena.number - FEW
    sender = take_orders(arena, found, start, middle)
    arena.wait_until_logged(sender, "the relay delivers")
    wait_for(lambda: not Invocation.objects.unsent().exists(), timeout=PATIENCE, what="the relays to go on")
    found.start()
    occupy(arena, middle, 3).open()
    arena.ingress.rule = lambda request: Plan(delay=0.05) if request.is_send else PASS
    take_orders(arena, found, middle + back, last)
    # So few are a task each, and nobody else takes them before its lease is over.
    take_orders(arena, found, last, arena.number)


def take_orders(arena: Arena, found: Broker, first: int, end: int) -> ChildProcess:
    """Start a process that takes orders and gives them to the workers."""
    sender = arena.start(
        "send", arena.prefix, str(end), "--first", str(first), "--many", env=found.env, DELIVERY="celery"
    )
    arena.finish(sender)
    return sender


@bitten_by(NO_LEASE)
def test_on_redis(arena: Arena) -> None:
    all_at_once(arena, "redis://127.0.0.1:{port}/9", 6379, "two relays, four workers, two beats on Redis")


@bitten_by(NO_LEASE)
def test_on_rabbitmq(arena: Arena) -> None:
    all_at_once(arena, "amqp://guest:guest@127.0.0.1:{port}//", 5672, "two relays, four workers, two beats on RabbitMQ")
