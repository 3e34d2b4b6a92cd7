"""The Restate server is killed under load, stays away for a day, and loses all that it knew."""

from __future__ import annotations

import pytest

from restate_django import delivery
from restate_django.models import Invocation
from tests.faults.arena import Arena, bitten_by
from tests.faults.proxy import PASS
from tests.faults.scale import IN_FLIGHT

pytestmark = pytest.mark.usefixtures("own_ground")


@bitten_by("a new key per attempt")
def test_killed_under_load(arena: Arena) -> None:
    """It dies with answers on its lips, and comes back while the relay goes on."""
    arena.record()
    gate = arena.hold_answers(arena.number // 2)
    relay = arena.start_relay()
    gate.wait_for(IN_FLIGHT)
    arena.ground.server.kill()
    gate.drop()
    arena.ground.server.start()
    # Nobody holds anything any more.
    arena.ingress.rule = lambda _request: PASS
    came = arena.ingress.sends.came
    arena.ingress.wait_until(lambda: arena.ingress.sends.came > came, "the relay goes on")
    assert relay.running, relay.log_tail()
    arena.wait_until_idle()
    arena.judge("server killed and started under load", but_forgetful=True)


@bitten_by("gives up")
def test_killed_while_handlers_work(arena: Arena) -> None:
    """It dies twice: with handlers at work, requests on their way to it, and others still to come."""
    server, third = arena.ground.server, arena.number // 3
    gate = arena.hold_requests(third)
    sender = arena.start_sender("--many", "--wait-for", str(arena.go_file))
    gate.wait_for(IN_FLIGHT)
    arena.wait_until_handlers_work()
    server.kill()
    gate.open()
    arena.finish(sender)
    server.start()
    if not arena.mutant:
        # The mutant has given up by now.
        gate = arena.hold_requests(2 * third)
        worker = arena.start("deliver")
        gate.wait_for(IN_FLIGHT)
        arena.wait_until_handlers_work()
        server.kill()
        gate.open()
        arena.finish(worker)
        server.start()
    arena.go_file.touch()
    arena.wait_until_idle()
    arena.judge("server killed while handlers work, twice", but_forgetful=True)


@bitten_by("an outage starts the clock")
def test_away_for_a_day(arena: Arena) -> None:
    """Longer than the back-off, and longer than Restate remembers a key: nothing ran, so no row is given up."""
    arena.record()
    arena.ground.server.kill()
    arena.run_jobs("outage")
    arena.ground.server.start()
    arena.judge("server away for a day")


@bitten_by("never believes")
def test_wiped(arena: Arena) -> None:
    """It forgets all that it took. What it had is gone; what it had not yet, or nobody knows of, is delivered anew."""
    arena.record()
    half = arena.number // 2
    taken = Invocation.objects.order_by("pk").values_list("pk", flat=True)[:half]
    for start in range(0, half, delivery.BATCH):
        delivery.deliver_now(list(taken)[start : start + delivery.BATCH], "default")
    gate = arena.hold_answers()
    relay = arena.start_relay()
    gate.wait_for(IN_FLIGHT)
    relay.kill()
    gate.drop()
    arena.wait_until_idle()
    before = arena.ledger()
    arena.ground.server.wipe()
    arena.ground.handlers.register(arena.ground.server.admin_url)
    arena.judge_wipe("server wiped (counted apart)", before, half)
