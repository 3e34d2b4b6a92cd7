"""A lease runs out while its owner still works, and clocks that jump or do not agree."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults.arena import Arena, bitten_by
from tests.faults.proxy import PASS, Gate, Plan, Request, answer
from tests.faults.scale import IN_FLIGHT
from tests.require import require

if TYPE_CHECKING:
    from restate_django.testing.process import ChildProcess

REFUSED = answer(400, b'{"code": 400, "message": "bad request", "source": "ingress"}', x_restate_error_source="ingress")


def refuse_late(arena: Arena) -> Gate:
    """Let the first requests wait, and be refused in the end by a server that ran nothing of them."""
    gate = Gate()

    def rule(request: Request) -> Plan:
        first = request.is_send and arena.ingress.sends.came <= IN_FLIGHT
        return Plan(forward=False, hold_answer=gate, answer=REFUSED) if first else PASS

    arena.ingress.rule = rule
    return gate


@bitten_by("no fence")
def test_an_owner_that_was_asleep(arena: Arena) -> None:
    """The owner stands still, and the others' clocks outlive its lease. One takes over; then the owner wakes up."""
    # By its own clock it has time enough: nothing but the fence keeps it from writing.
    arena.connection |= {"TIMEOUT": 60.0, "LEASE": 180.0}
    arena.record()
    gate = refuse_late(arena)
    owner = arena.start_relay()
    gate.wait_for(IN_FLIGHT)
    assert owner.pid is not None
    os.kill(owner.pid, signal.SIGSTOP)
    gate.open()
    arena.deliver_what_was_left()
    arena.wait_until_idle()
    os.kill(owner.pid, signal.SIGCONT)
    wait_until_it_works_again(arena, owner)
    arena.judge("a lease runs out, its owner wakes up", but_forgetful=True)


def wait_until_it_works_again(arena: Arena, owner: ChildProcess) -> None:
    """Let a relay that was stopped finish what it had in hand, and end in good order."""
    before = arena.admin.others.came
    arena.admin.wait_until(lambda: arena.admin.others.came > before, "the owner polls again")
    owner.stop()
    assert owner.returncode == 0, owner.log_tail()


@bitten_by("no window")
def test_the_rows_clock_jumps(arena: Arena) -> None:
    """Every lease is over at once, while its owner has requests on the wire: they come after another worker's."""
    gate = arena.hold_requests()
    sender = arena.start_sender("--many")
    gate.wait_for(IN_FLIGHT)
    arena.deliver_what_was_left()
    gate.open()
    arena.finish(sender)
    arena.wait_until_late_requests_came()
    arena.wait_until_idle()
    arena.judge("the clock jumps, leases end early", but_forgetful=True)


def clock(offset: str) -> dict[str, str]:
    """Return the environment of a process whose clock is wrong by so much."""
    library = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)
    require(library, "there is no libfaketime (Debian: faketime)")
    # The monotonic clock is the machine's own: no clock of a wall moves it.
    return {"LD_PRELOAD": str(library), "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


@bitten_by("no window")
def test_a_sender_whose_clock_is_slow(arena: Arena) -> None:
    """By everybody else's clock its leases are over when they are written: the relay takes what it is sending."""
    gate = arena.hold_requests()
    sender = arena.start_sender("--many", env=clock("-1h"))
    gate.wait_for(IN_FLIGHT)
    arena.run_jobs("relay", "--once")
    gate.open()
    arena.finish(sender)
    arena.wait_until_late_requests_came()
    arena.wait_until_idle()
    arena.judge("a sender whose clock is an hour slow", but_forgetful=True)


@bitten_by("no window")
def test_a_relay_whose_clock_is_fast(arena: Arena) -> None:
    """It takes what others hold, and sees a row's window shorter than it is, never longer."""
    gate = arena.hold_requests()
    sender = arena.start_sender("--many")
    gate.wait_for(IN_FLIGHT)
    arena.run_jobs("relay", "--once", env=clock("+1h"))
    gate.open()
    arena.finish(sender)
    arena.wait_until_late_requests_came()
    arena.wait_until_idle()
    arena.judge("a relay whose clock is an hour fast", but_forgetful=True)
