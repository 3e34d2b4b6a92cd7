"""A process that a fault is done to: ``python -m tests.faults.victim send|steady|relay|poll|settle|celery ...``.

It does what a project's own process would, through the public API and the management command. Nothing of the app is
changed in it, unless ``FAULTS_MUTANT`` names a mutant: then one thing that keeps a promise is taken away, and the test
must notice. The mutants are here and nowhere else.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import importlib
import itertools
import os
import signal
import sys
import threading
import time
import urllib.request
import uuid
from typing import TYPE_CHECKING, Any, Final, Literal

import django
from django.core.management import execute_from_command_line

if TYPE_CHECKING:
    from collections.abc import Callable

# ---------------------------------------------------------------- what a victim does


def send(args: argparse.Namespace) -> None:
    """Take orders in one transaction, each by ``send`` or all by ``send_many``; charge for them before the commit."""
    from django.db import transaction

    from restate_django import send as send_one
    from restate_django import send_many
    from tests.faults import rows

    outgoing = [rows.outgoing(name, args.wait_for) for name in rows.names(args.prefix, args.number)[args.first :]]
    with transaction.atomic():
        if args.many:
            send_many(outgoing)
        else:
            for item in outgoing:
                send_one(item.service, item.handler, item.payload, key=item.key, idempotency_key=item.idempotency_key)
        if args.charge:
            with urllib.request.urlopen(args.charge, timeout=60) as answer:
                answer.read()


def steady(args: argparse.Namespace) -> None:
    """Take one order after the other, each in a transaction of its own as views do, until it is asked to end."""
    from django.db import Error, close_old_connections, transaction

    from restate_django import send as send_one
    from tests.faults import rows

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    due = time.monotonic()
    for number in itertools.count():
        if stop.wait(max(0.0, due - time.monotonic())):
            return
        # Who was held up does not make up for more than a second.
        due = max(due, time.monotonic() - 1) + 1 / args.rate
        item = rows.outgoing(rows.name_of(args.prefix, number))
        # As Django does around a request.
        close_old_connections()
        try:
            with transaction.atomic():
                send_one(item.service, item.handler, item.payload, key=item.key, idempotency_key=item.idempotency_key)
        except Error as error:
            # The visitor sees an error page, and orders anew.
            sys.stderr.write(f"{type(error).__name__}: {error}\n")


def relay(args: argparse.Namespace) -> None:
    """Run the relay as a project does."""
    execute_from_command_line(["django-admin", "restate_relay", *args.rest])


def poll(_args: argparse.Namespace) -> None:
    """Poll, again and again, and deliver nothing."""
    from restate_django import polling

    while True:
        polling.poll_due()
        time.sleep(0.05)


def deliver(_args: argparse.Namespace) -> None:
    """Make one attempt at each row that Restate has not accepted, once every lease has run out."""
    from tests.faults import settling

    settling.outlive_leases()
    settling.attempt_once()


def outage(_args: argparse.Namespace) -> None:
    """Make an attempt at each row again and again, while more than a day passes for the rows."""
    from tests.faults import settling

    for _ in range(5):
        settling.attempt_once()
        settling.put_forward(dt.timedelta(hours=6))


def settle(args: argparse.Namespace) -> None:
    """Run the jobs until nothing is due: for what a mutant does after the fault."""
    from tests.faults import settling

    settling.settle(args.seconds, args.rounds)


def celery(args: argparse.Namespace) -> None:
    """Run a Celery worker or beat, as the command of that name does."""
    from tests.faults.celery_app import app

    app.start(args.rest)


# ---------------------------------------------------------------- what it may be robbed of


def _replace(place: object, **names: object) -> None:
    for name, value in names.items():
        assert hasattr(place, name), f"{place} has no {name} any more: a mutant that changes nothing proves nothing"
        setattr(place, name, value)


def no_lease() -> None:
    """Recording and claiming take no row for anybody: whoever finds a row due sends it, and no attempt is noted."""
    from django.utils import timezone

    from restate_django import outbox
    from restate_django.querysets import InvocationQuerySet

    lease_rows = outbox.lease_rows

    def record(rows: Any, *args: Any) -> None:
        rows = list(rows)
        lease_rows(rows, *args)
        for row in rows:
            row.attempts, row.unknown_since, row.next_attempt_at = 0, None, timezone.now()

    def claim(self: Any, legal: Any, due: str, *, now: Any, limit: int, lease: Any, pks: Any, **_changes: Any) -> Any:
        found = legal.filter(pk__in=pks) if pks else legal.filter(**{f"{due}__lte": now})
        taken = list(found.order_by("pk")[:limit])
        for row in taken:
            row.lease_until, row.claimed_at = now + lease, now
        return taken

    _replace(outbox, lease_rows=record)
    _replace(InvocationQuerySet, _claim=claim)


def no_end_to_a_lease() -> None:
    """A row that is taken is taken for good, as by a status "sending": nothing is due that somebody had."""
    from restate_django import outbox
    from restate_django.querysets import InvocationQuerySet

    lease_rows, claim, claim_for_poll = outbox.lease_rows, InvocationQuerySet._claim, InvocationQuerySet.claim_for_poll

    def record(rows: Any, *args: Any) -> None:
        rows = list(rows)
        lease_rows(rows, *args)
        for row in rows:
            row.next_attempt_at = None

    def claim_for_good(self: Any, legal: Any, due: str, **kwargs: Any) -> Any:
        taken = claim(self, legal, due, **kwargs)
        self.model.objects.filter(pk__in=[row.pk for row in taken]).update(**{due: None})
        return taken

    def claim_for_poll_for_good(self: Any, **kwargs: Any) -> Any:
        taken = claim_for_poll(self, **kwargs)
        self.model.objects.filter(pk__in=[row.pk for row in taken.rows]).update(next_poll_at=None)
        return taken

    _replace(outbox, lease_rows=record)
    _replace(InvocationQuerySet, _claim=claim_for_good, claim_for_poll=claim_for_poll_for_good)


def no_fence() -> None:
    """A write-back is a plain update: whoever writes last is right."""
    from restate_django.querysets import InvocationQuerySet

    def write_back(self: Any, invocation: Any, *, lease: Any = None, **changes: Any) -> bool:
        self.filter(pk=invocation.pk).update(**changes)
        for name, value in changes.items():
            setattr(invocation, name, value)
        return True

    _replace(InvocationQuerySet, write_back=write_back)


def new_key() -> None:
    """Each attempt has an idempotency key of its own."""
    from restate_django import submitting

    submit = submitting.submit

    def submit_anew(connection: Any, row: Any, **kwargs: Any) -> Any:
        row.idempotency_key = uuid.uuid4().hex
        return submit(connection, row, **kwargs)

    _replace(submitting, submit=submit_anew)


def no_window() -> None:
    """What may have run is sent again, whether Restate remembers its key or not."""
    from restate_django import attempts

    _replace(attempts, _window_is_open=lambda _connection, _row: True)


def early() -> None:
    """What waits for a commit is done at once."""
    from django.db import transaction

    _replace(transaction, on_commit=lambda callback, **_kwargs: callback())


def outage_starts_the_clock() -> None:
    """An attempt that provably ran nothing counts like one that may have run."""
    from restate_django.exceptions import OutcomeUnknown, Unavailable

    _take_errors_of_sends_for(OutcomeUnknown, Unavailable)


def gives_up() -> None:
    """An attempt that may succeed later counts like one that never will."""
    from restate_django.client import transport
    from restate_django.exceptions import OutcomeUnknown, Refused, Unavailable

    _take_errors_of_sends_for(Refused, Unavailable, OutcomeUnknown)
    _replace(transport, broken=lambda error, *_args, **_kwargs: Refused(str(error)))


def not_knowing_is_failing() -> None:
    """What can't be read is taken for gone."""
    from restate_django.client import AdminClient, IngressClient, Output, OutputState
    from restate_django.exceptions import RestateError

    read = IngressClient.output

    def output(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return read(self, *args, **kwargs)
        except RestateError:
            return Output(state=OutputState.UNKNOWN)

    def sys_invocations(_self: Any, *_args: Any, **_kwargs: Any) -> list[Any]:
        return []

    _replace(IngressClient, output=output)
    _replace(AdminClient, sys_invocations=sys_invocations)


def never_believes() -> None:
    """What Restate does not know is asked about for ever."""
    from restate_django.client import IngressClient, OutputState
    from restate_django.exceptions import Unavailable

    read = IngressClient.output

    def output(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = read(self, *args, **kwargs)
        if found.state is OutputState.UNKNOWN:
            raise Unavailable("It is not believed.")
        return found

    _replace(IngressClient, output=output)


def _take_errors_of_sends_for(taken_for: type[Exception], *told: type[Exception]) -> None:
    """Let sends, one by one and in bulk, end in another error than the one that was told."""
    from restate_django.client import IngressClient

    send, send_many = IngressClient.send, IngressClient.send_many

    def misled(*args: Any, **kwargs: Any) -> Any:
        try:
            return send(*args, **kwargs)
        except told as error:
            raise taken_for(str(error)) from error

    def all_misled(*args: Any, **kwargs: Any) -> Any:
        for name, result, seconds in send_many(*args, **kwargs):
            yield name, taken_for(str(result)) if isinstance(result, told) else result, seconds

    _replace(IngressClient, send=misled, send_many=all_misled)


@dataclasses.dataclass(frozen=True)
class Mutant:
    """What a victim may be robbed of.

    Attributes:
        rob: Takes it away.
        harm: How that must show in the count, see ``arena.Arena.judge``: to be noticed by another sign is to be lucky.
    """

    rob: Callable[[], None]
    harm: Literal["twice", "left open or lost", "wrong", "not run"]


MUTANTS: Final = {
    "no lease": Mutant(no_lease, "twice"),
    "no end to a lease": Mutant(no_end_to_a_lease, "left open or lost"),
    "no fence": Mutant(no_fence, "wrong"),
    "a new key per attempt": Mutant(new_key, "twice"),
    "no window": Mutant(no_window, "twice"),
    "sends before the commit": Mutant(early, "twice"),
    "an outage starts the clock": Mutant(outage_starts_the_clock, "not run"),
    "gives up": Mutant(gives_up, "not run"),
    "not knowing is failing": Mutant(not_knowing_is_failing, "wrong"),
    "never believes": Mutant(never_believes, "left open or lost"),
}
#: Between the names of two mutants in one.
AND: Final = " + "


def main(argv: list[str]) -> None:
    """Run one victim."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(required=True)
    sender = commands.add_parser("send")
    sender.add_argument("prefix")
    sender.add_argument("number", type=int)
    sender.add_argument("--first", type=int, default=0, help="The first order that is taken.")
    sender.add_argument("--many", action="store_true", help="By one send_many.")
    sender.add_argument("--wait-for", default="", help="A file that each handler waits for.")
    sender.add_argument("--charge", help="A URL that is read before the commit.")
    sender.set_defaults(run=send)
    steady_sender = commands.add_parser("steady")
    steady_sender.add_argument("prefix")
    steady_sender.add_argument("rate", type=float, help="Orders per second.")
    steady_sender.set_defaults(run=steady)
    settler = commands.add_parser("settle")
    settler.add_argument("--seconds", type=float, required=True)
    settler.add_argument("--rounds", type=int, default=0)
    settler.set_defaults(run=settle)
    for name, run in (
        ("relay", relay), ("poll", poll), ("deliver", deliver), ("outage", outage), ("celery", celery),
    ):  # fmt: skip
        commands.add_parser(name).set_defaults(run=run)
    args, rest = parser.parse_known_args(argv)
    args.rest = rest
    django.setup()
    if "FAULTS_BROKER" in os.environ:
        # As a project's own package does: without it a view's tasks would go to the broker that Celery takes for given.
        importlib.import_module("tests.faults.celery_app")
    for mutant in filter(None, os.environ.get("FAULTS_MUTANT", "").split(AND)):
        MUTANTS[mutant].rob()
    args.run(args)


if __name__ == "__main__":
    main(sys.argv[1:])
