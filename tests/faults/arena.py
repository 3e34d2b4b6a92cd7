"""Where a fault is done: a real server behind a proxy, victims to kill, the database's lock, and the count at the end.

A test makes its fault by hand and then calls ``judge``, which lets the jobs run until nothing is due and compares the
rows with the ledger. Against a mutant the same test must end badly.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import requests
from django.db import OperationalError, transaction
from django.db import connection as database

from restate_django import send_many
from restate_django.lifecycle import OPEN, Status
from restate_django.models import Invocation
from restate_django.testing import HandlerServer, NoServerError, RestateServer
from restate_django.testing.process import ChildProcess
from tests.faults import rows, settling
from tests.faults.proxy import LOOPBACK, PASS, Gate, HttpProxy, Plan, TcpProxy
from tests.faults.scale import IN_FLIGHT, MUTANT_ROUNDS, MUTANT_ROWS, PATIENCE, ROWS
from tests.faults.victim import AND, MUTANTS
from tests.require import require
from tests.told import tell
from tests.wait import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from tests.faults.proxy import Request

ROOT: Final = Path(__file__).resolve().parents[2]
#: A row that did not run must say why, and these do.
SAYS_WHY: Final = frozenset({Status.REJECTED, Status.UNDELIVERABLE, Status.CANCELLED, Status.KILLED, Status.FAILED})
#: A row of a service that remembers nothing may end like this although it ran: nobody could tell any more.
FORGOTTEN: Final = frozenset({Status.SUCCEEDED, Status.GONE, Status.UNDELIVERABLE})


#: MariaDB's "Unknown thread id".
UNKNOWN_THREAD: Final = 1094
#: Of this database alone: others of the same server may belong to other runs.
WAITING_ON_MYSQL: Final = (
    "FROM information_schema.innodb_trx JOIN information_schema.processlist ON id = trx_mysql_thread_id"
    " WHERE trx_state = 'LOCK WAIT' AND db = DATABASE()"
)


@dataclasses.dataclass
class Count:
    """What became of the rows of one fault.

    Attributes:
        title: The fault.
        invocations: Committed rows.
        once: Those that ran exactly once.
        says_why: Those that did not run, and end in a status that says why.
        lost: Those that did not run, and nothing says why and nothing is due.
        twice: Orders that ran more than once.
        left_open: Rows of which more was to be heard, when the time was over.
        wrong: Rows whose status says other than the ledger: "nothing ran" of one that ran, or an outcome that was
            there to be read and is not in the row.
    """

    title: str
    invocations: int = 0
    once: int = 0
    says_why: int = 0
    lost: int = 0
    twice: int = 0
    left_open: int = 0
    wrong: int = 0

    @property
    def is_clean(self) -> bool:
        """Nothing was lost, nothing ran twice, and every row says how it ended."""
        return not (self.lost or self.twice or self.left_open or self.wrong)


@dataclasses.dataclass
class Ground:
    """A running server with the ledger's handlers, and the proxies before it.

    Attributes:
        ingress: The proxy before the ingress.
        admin: The proxy before the Admin API.
    """

    server: RestateServer
    handlers: HandlerServer
    ledger_file: Path
    ingress: HttpProxy
    admin: HttpProxy


def start_ground(stack: contextlib.ExitStack, folder: Path) -> Ground:
    """Start a server with the ledger's handlers, and the proxies.

    Args:
        stack: Ends them.
        folder: Where the ledger is.
    """
    server = RestateServer()
    stack.callback(server.stop)
    try:
        server.start()
    except NoServerError as error:
        require(condition=False, reason=f"there is no Restate server: {error}")
    return ground_of(server, stack, folder)


def ground_of(server: Any, stack: contextlib.ExitStack, folder: Path) -> Ground:
    """Start the ledger's handlers and the proxies for a server that runs.

    Args:
        server: The server, or what stands for one: it has ``ingress_url`` and ``admin_url``.
        stack: Ends them.
        folder: Where the ledger is.
    """
    ledger_file = folder / "ledger.jsonl"
    handlers = HandlerServer("tests.faults.handlers:app", cwd=ROOT, env={"LEDGER_FILE": str(ledger_file)})
    stack.callback(handlers.stop)
    handlers.start()
    handlers.register(server.admin_url)
    ingress, admin = HttpProxy(server.ingress_url), HttpProxy(server.admin_url)
    stack.callback(ingress.close)
    stack.callback(admin.close)
    return Ground(server, handlers, ledger_file, ingress, admin)


def end_connections(query: str) -> None:
    """End connections of others to the database.

    Args:
        query: On PostgreSQL it ends them itself; on MariaDB it selects a statement for each that does.
    """
    with database.cursor() as cursor:
        cursor.execute(query)
        for (statement,) in cursor.fetchall() if database.vendor == "mysql" else ():
            try:
                cursor.execute(statement)
            except OperationalError as error:
                # It has gone by itself since.
                if error.args[0] != UNKNOWN_THREAD:
                    raise


class Arena:
    """One fault, done to the product or to a mutant of it.

    Args:
        ground: The server.
        mutant: The mutant's name; empty for the product.
        folder: Where the victims' logs go.
        prefix: What this fault's orders are named after.
        settings: pytest-django's ``settings`` (its class has another name from release to release).
    """

    def __init__(self, ground: Ground, mutant: str, folder: Path, prefix: str, settings: Any) -> None:
        self.ground = ground
        self.settings = settings
        self.mutant = mutant
        self.folder = folder
        #: Handlers may wait for it, see ``victim``: the test makes it.
        self.go_file = folder / "go"
        self.prefix = prefix
        self.number = MUTANT_ROWS if mutant else ROWS
        self.ingress = ground.ingress
        self.admin = ground.admin
        self.victims: list[ChildProcess] = []
        self.settled = False
        # Long, so that no time is over by chance while a test holds something: what waits for one shortens it.
        self.connection: dict[str, Any] = {
            "TIMEOUT": 30.0,
            "ON_COMMIT_TIMEOUT": 30.0,
            "LEASE": 90.0,
            "POLL_MIN_INTERVAL": 0.1,
            "CONCURRENCY": IN_FLIGHT,
        }

    # ------------------------------------------------------------ settings

    def restate(self, **changes: Any) -> dict[str, Any]:
        """Return the setting ``RESTATE`` of a process whose requests go through the proxies."""
        urls = {"INGRESS_URL": self.ingress.url, "ADMIN_URL": self.admin.url}
        return {"default": {**self.connection, **urls, **changes}}

    def use_directly(self) -> None:
        """Let this process talk to the server without a proxy: it is what comes after the fault."""
        server = self.ground.server
        self.settings.RESTATE = self.restate(
            INGRESS_URL=server.ingress_url, ADMIN_URL=server.admin_url, DELIVERY="relay"
        )

    # ------------------------------------------------------------ victims

    def _one_by_one(self) -> dict[str, str]:
        """Leave libcurl out where a mutant's harm shows with those orders alone that don't go that way.

        A service that remembers no key is sent to apart, after the others: it has not come to that when the kill comes.
        And over a kept connection that has died libcurl itself sends again, whoever gives up.
        """
        alone = {"no lease", "no window", "gives up"} & set(self.mutant.split(AND))
        return {"WITHOUT_BULK": "1"} if alone else {}

    def start(self, *argv: str, env: dict[str, str] | None = None, **changes: Any) -> ChildProcess:
        """Start a victim.

        Args:
            argv: Its command, see ``victim``.
            env: Variables of its own.
            changes: Keys of its connection in ``RESTATE``.
        """
        victim = ChildProcess(
            [sys.executable, "-m", "tests.faults.victim", *argv],
            name=f"The victim {argv[0]!r}",
            log_file=self.folder / f"{len(self.victims)}-{argv[0]}.log",
            cwd=ROOT,
            env={
                "DJANGO_SETTINGS_MODULE": "tests.faults.settings",
                "FAULTS_RESTATE": json.dumps(self.restate(**changes)),
                "FAULTS_MUTANT": self.mutant,
                **(self._one_by_one()),
                **(env or {}),
            },
        )
        self.victims.append(victim)
        victim.start()
        return victim

    def start_sender(self, *options: str, **kwargs: Any) -> ChildProcess:
        """Start a process that takes this fault's orders."""
        return self.start("send", self.prefix, str(self.number), *options, **kwargs)

    def start_relay(self, **kwargs: Any) -> ChildProcess:
        """Start the relay."""
        return self.start("relay", "--deliver", "0.1", "--poll", "0.1", **kwargs)

    def finish(self, victim: ChildProcess, patience: float = PATIENCE) -> None:
        """Wait until a victim has ended by itself, in good order."""
        code = victim.wait(patience)
        assert code == 0, victim.log_tail()

    def stop(self) -> None:
        """Kill what still runs, and let no handler wait."""
        for victim in self.victims:
            victim.kill()
        self.go_file.touch()

    # ------------------------------------------------------------ rows

    def record(self, prefix: str = "") -> None:
        """Record this fault's orders, for the relay."""
        self.use_directly()
        send_many(rows.outgoing(name) for name in rows.names(prefix or self.prefix, self.number))

    def accept_all(self) -> None:
        """Record this fault's orders and let Restate run them; nobody has read yet what became of them."""
        from restate_django import delivery

        self.record()
        delivery.deliver_due()
        self.wait_until_idle()

    def ledger(self) -> dict[str, set[str]]:
        """Return the runs of this fault's orders by name."""
        found: dict[str, set[str]] = {}
        with contextlib.suppress(FileNotFoundError):
            for line in self.ground.ledger_file.read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                if entry["row"].startswith(self.prefix):
                    found.setdefault(entry["row"], set()).add(f"{entry['invocation_id']} {entry['run']}")
        return found

    def record_one_more(self) -> Invocation:
        """Record an order more, for who is still at work."""
        self.number += 1
        (row,) = send_many([rows.outgoing(rows.names(self.prefix, self.number)[-1])])
        return row

    def wait_until_accepted(self, row: Invocation) -> None:
        """Wait until a victim has delivered this row."""
        accepted = Invocation.objects.filter(pk=row.pk).exclude(status=Status.UNSENT)
        wait_for(accepted.exists, timeout=PATIENCE, what="a victim to deliver a row")

    def wait_until_logged(self, victim: ChildProcess, text: str) -> None:
        """Wait until a victim says something in its log."""
        file = victim.log_file
        assert file is not None
        wait_for(
            lambda: text in file.read_text(encoding="utf-8"), timeout=PATIENCE, what=f"{victim.name} to say: {text}"
        )

    def wait_until_idle(self) -> None:
        """Wait until the server has run all that it has taken."""
        calm = 0

        def is_idle() -> bool:
            # What was taken this very moment may not stand in the table yet: asked more than once.
            nonlocal calm
            calm = calm + 1 if self._ask_server("status <> 'completed'") == 0 else 0
            return calm > 2

        wait_for(is_idle, timeout=PATIENCE, what="the server to have run all that it has taken")

    def _ask_server(self, condition: str) -> int | None:
        """Return how many invocations are so; None when the server was just started, and its tables are not there."""
        question = {"query": f"SELECT count(*) AS found FROM sys_invocation WHERE {condition}"}
        with requests.Session() as session:
            session.trust_env = False
            url = f"{self.ground.server.admin_url}/query"
            answer = session.post(url, json=question, headers={"Accept": "application/json"}, timeout=10).json()
        found: Any = answer.get("rows")
        return int(found[0]["found"]) if found else None

    # ------------------------------------------------------------ the wire

    def hold_requests(self, first: int = 0) -> Gate:
        """Let sends wait before they come to Restate, those of the orders from this number on."""
        gate = Gate()
        self.ingress.rule = lambda request: Plan(hold_request=gate) if is_send_of(request, first) else PASS
        return gate

    def hold_answers(self, first: int = 0) -> Gate:
        """Let Restate's answers to sends wait before anybody hears them, those of the orders from this number on.

        Who sends in order, and has all that it sends at once at the gate, has heard of every order before those.
        """
        gate = Gate()
        self.ingress.rule = lambda request: Plan(hold_answer=gate) if is_send_of(request, first) else PASS
        return gate

    def hold_both(self, first: int) -> Gate:
        """Let everything wait where it is, from this order on: every other one before Restate, the rest after it."""
        gate = Gate()

        def rule(request: Request) -> Plan:
            if not is_send_of(request, first):
                return PASS
            return Plan(hold_request=gate) if rows.number_of(request.row or "") % 2 else Plan(hold_answer=gate)

        self.ingress.rule = rule
        return gate

    def hold_outputs(self) -> Gate:
        """Let Restate's answers to those who read wait before anybody hears them."""
        gate = Gate()
        self.ingress.rule = lambda request: Plan(hold_answer=gate) if request.is_output else PASS
        return gate

    def wait_until_late_requests_came(self) -> None:
        """Wait until Restate has answered all that was held on the way to it, though nobody listens any more."""
        self.ingress.wait_until(lambda: self.ingress.sends.answered >= IN_FLIGHT, "the late requests came")

    # ------------------------------------------------------------ the handlers

    def wait_until_handlers_work(self) -> None:
        """Wait until a handler is at work."""
        wait_for(
            lambda: self._ask_server("status = 'running'") not in (None, 0), timeout=PATIENCE, what="a handler to work"
        )

    # ------------------------------------------------------------ the database's lock

    @contextlib.contextmanager
    def locked_rows(self) -> Iterator[None]:
        """Hold the database so that nobody can write a row, until the block's end."""
        if database.vendor == "sqlite":
            # The settings ask for IMMEDIATE transactions: beginning one takes the only lock that there is.
            with transaction.atomic():
                yield
            return
        with transaction.atomic():
            list(Invocation.objects.select_for_update().values_list("pk", flat=True).order_by("pk"))
            yield

    def wait_until_blocked(self, victim: ChildProcess) -> None:
        """Wait until a victim is seen to wait for the lock of ``locked_rows``.

        SQLite does not say who waits, but it sleeps meanwhile, which nothing else does in a victim's first thread; a
        kernel that does not tell what a process waits for leaves the moment that one needs to come so far.
        """
        question = {
            "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND datname = current_database()",
            "mysql": f"SELECT count(*) {WAITING_ON_MYSQL}",
        }.get(database.vendor)
        if question is None:
            wait_point = Path(f"/proc/{victim.pid}/wchan")
            if wait_point.exists():
                wait_for(
                    lambda: "nanosleep" in wait_point.read_text(encoding="ascii"),
                    timeout=PATIENCE,
                    what="a victim to wait for the lock",
                )
            else:
                time.sleep(2.0)
            return

        def is_blocked() -> bool:
            # MariaDB looks anew only when nobody has asked for a tenth of a second.
            time.sleep(0.15)
            with database.cursor() as cursor:
                if database.vendor == "postgresql":
                    # Within a transaction it keeps showing what it showed first.
                    cursor.execute("SELECT pg_stat_clear_snapshot()")
                cursor.execute(question)
                found = cursor.fetchone()
            return bool(found and found[0])

        wait_for(is_blocked, timeout=PATIENCE, what="a victim to wait for the lock")

    @contextlib.contextmanager
    def a_database_that_goes(self) -> Iterator[tuple[dict[str, str], Callable[[], AbstractContextManager[None]]]]:
        """Yield the environment of a victim that uses the database over a wire, and what takes the database away.

        A file has no wire: on SQLite somebody else holds the lock for longer than the victim is told to wait.
        """
        if database.vendor == "sqlite":
            yield {"FAULTS_SQLITE_TIMEOUT": "0.3"}, self.locked_rows
            return
        told = database.settings_dict
        default = {"postgresql": 5432, "mysql": 3306}[database.vendor]
        wire = TcpProxy(told["HOST"] or LOOPBACK, int(told["PORT"] or default))

        @contextlib.contextmanager
        def gone() -> Iterator[None]:
            wire.cut()
            try:
                yield
            finally:
                wire.mend()

        try:
            yield {"FAULTS_DATABASE_PORT": str(wire.port)}, gone
        finally:
            wire.close()

    def forget_the_dead(self) -> None:
        """End what the database still does for a victim that was killed, as it would when its machine had died.

        Of a process that is killed it may still carry out the statement that waits: both may happen, and this one is
        the harder.
        """
        waiting = {
            "postgresql": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND datname = current_database()",
            "mysql": f"SELECT CONCAT('KILL ', trx_mysql_thread_id) {WAITING_ON_MYSQL}",
        }
        if database.vendor in waiting:
            end_connections(waiting[database.vendor])

    # ------------------------------------------------------------ the end

    def deliver_what_was_left(self) -> None:
        """Let the leases run out, and the jobs do what is due then: the mutant's, where there is one."""
        self.run_jobs("deliver")

    def poll_through_the_proxies(self) -> None:
        """Poll until nothing is due, over the wire that the test has made."""
        self.finish(self.start("settle", "--seconds", str(PATIENCE)))

    def run_jobs(self, *what: str, env: dict[str, str] | None = None) -> None:
        """Run the jobs in a process of their own, beside the victims and directly at the server."""
        server = self.ground.server
        self.finish(
            self.start(*what, env=env, DELIVERY="relay", INGRESS_URL=server.ingress_url, ADMIN_URL=server.admin_url)
        )

    def settle(self) -> None:
        """Let the jobs run until nothing is due: the mutant's, where there is one."""
        self.settled = True
        self.stop()
        self.ingress.reset()
        self.admin.reset()
        if self.mutant:
            self.run_jobs("settle", "--seconds", "0", "--rounds", str(MUTANT_ROUNDS))
            # What it has sent a second time is to be in the ledger.
            self.wait_until_idle()
        else:
            self.use_directly()
            settling.settle(PATIENCE)

    def count(self, title: str, prefix: str = "", *, gone_is_an_end: bool = False) -> Count:
        """Compare the rows with the ledger.

        Args:
            title: The fault.
            prefix: What its orders are named after; by default all that this arena knows of.
            gone_is_an_end: The server has forgotten: a row that says ``gone`` is right, whether or not it ran.
        """
        prefix = prefix or self.prefix
        count = Count(title)
        ran = {name: len(runs) for name, runs in self.ledger().items() if name.startswith(f"{prefix}/")}
        count.twice = sum(1 for times in ran.values() if times > 1)
        for row in Invocation.objects.only("status", "payload", "output", "next_attempt_at", "next_poll_at"):
            name = name_of(row)
            if not name.startswith(f"{prefix}/"):
                continue
            times = ran.pop(name, 0)
            count.invocations += 1
            count.once += times == 1
            if gone_is_an_end and row.status == Status.GONE:
                count.says_why += not times
            elif row.status in OPEN:
                due = row.next_attempt_at or row.next_poll_at
                count.left_open += bool(due or times)
                count.lost += not (due or times)
            elif not times:
                count.says_why += row.status in SAYS_WHY
                count.lost += row.status not in SAYS_WHY
            elif row.status == Status.SUCCEEDED:
                count.wrong += row.output != "written"
            else:
                count.wrong += not (rows.is_forgetful(name) and row.status in FORGOTTEN)
        # What ran and has no row: it was rolled back, and should never have left.
        count.wrong += len(ran)
        return count

    def judge(self, title: str, prefix: str = "", *, but_forgetful: bool = False) -> Count:
        """Settle, count, and hold the count to what was promised: every row ran once. A mutant's must not hold.

        Args:
            title: The fault, for the report.
            prefix: What its orders are named after, where one run has several faults.
            but_forgetful: A row of a service that remembers nothing need not have run, where nobody can tell whether it
                did: it must say so.
        """
        if not self.settled:
            self.settle()
        count = self.count(title, prefix)
        names = rows.names(prefix or self.prefix, self.number)
        expected = sum(not (but_forgetful and rows.is_forgetful(name)) for name in names)
        good = count.is_clean and count.invocations == self.number and count.once >= expected
        report(count, self.mutant)
        if self.mutant:
            self._notice(count, expected)
        else:
            assert good, f"{count}; statuses: {self.statuses()}"
        return count

    def _notice(self, count: Count, expected: int) -> None:
        """Hold a mutant to the harm that it is known for."""
        harm = {
            "twice": count.twice,
            "left open or lost": count.left_open + count.lost,
            "wrong": count.wrong,
            "not run": expected - count.once,
        }
        found = [harm[MUTANTS[name].harm] for name in self.mutant.split(AND)]
        assert min(found) > 0, f"The mutant ({self.mutant}) was not noticed: {count}; statuses: {self.statuses()}"

    def judge_wipe(self, title: str, before: dict[str, set[str]], taken: int) -> Count:
        """As ``judge``, for a server that forgot all: what it had taken is gone, and nothing else is; none stays open.

        Args:
            title: The fault.
            before: What had run on the server that is wiped.
            taken: So many orders had been accepted, and nobody had read yet what became of them.
        """
        self.settle()
        # Of a row that is gone nobody can say whether it ran.
        count = self.count(title, gone_is_an_end=True)
        report(count, self.mutant)
        if self.mutant:
            self._notice(count, self.number)
            return count
        runs = {name: len(found - before.get(name, set())) for name, found in self.ledger().items()}
        named = {name_of(row): row.status for row in Invocation.objects.only("payload", "status")}
        told = f"{count}; statuses: {self.statuses()}"
        assert count.invocations == self.number, told
        assert all(times <= 1 for times in runs.values()), f"The new server ran an order twice: {told}"
        assert all(status == Status.GONE for name, status in named.items() if rows.number_of(name) < taken), told
        # A row of the rest is sent to the new server, but one of which nobody can tell whether the old one ran it. What
        # the new server ran for a service that remembers nothing, it has forgotten as well.
        rest = {name: status for name, status in named.items() if rows.number_of(name) >= taken}
        lasting = {status for name, status in rest.items() if not rows.is_forgetful(name)}
        assert lasting <= {Status.SUCCEEDED, Status.UNDELIVERABLE}, told
        assert set(rest.values()) <= FORGOTTEN, told
        assert all(runs.get(name) for name, status in rest.items() if status == Status.GONE), told
        return count

    def statuses(self) -> dict[str, int]:
        """Return how many rows have which status, by their kind."""
        found = Counter(
            f"{rows.kind_of(name_of(row))}: {row.status}" for row in Invocation.objects.only("payload", "status")
        )
        return dict(sorted(found.items()))


def is_send_of(request: Request, first: int) -> bool:
    """Tell whether a request would start a handler for an order from this number on."""
    return request.is_send and request.row is not None and rows.number_of(request.row) >= first


def name_of(row: Invocation) -> str:
    """Return the order that a row is about."""
    payload: Any = row.payload
    return str(payload["row"])


def report(count: Count, mutant: str) -> None:
    """Keep a count for the table at the end of the run."""
    title = f"{database.vendor}: {count.title}{f' [mutant: {mutant}]' if mutant else ''}"
    tell("faults", title, *dataclasses.astuple(count)[1:])


def bitten_by(*mutants: str) -> pytest.MarkDecorator:
    """Do a test's fault to the product, and then to each of these mutants, which it must notice."""
    return pytest.mark.parametrize(
        "arena", ["", *mutants], ids=lambda mutant: f"mutant: {mutant}" if mutant else "the product", indirect=True
    )
