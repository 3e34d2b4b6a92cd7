"""A cluster of three Restate servers behind a balancer: one is killed under load, then another, and nothing is lost."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from restate_django.models import Invocation
from restate_django.testing import NoServerError
from restate_django.testing.binary import find_binary
from tests.faults.arena import Arena, bitten_by, ground_of
from tests.faults.cluster import Cluster
from tests.faults.proxy import PASS
from tests.faults.scale import IN_FLIGHT, PATIENCE
from tests.require import require
from tests.wait import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.faults.arena import Ground

pytestmark = pytest.mark.usefixtures("own_ground")


@pytest.fixture(scope="module")
def own_ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """The cluster, as if it were one server."""
    try:
        find_binary()
    except NoServerError as error:
        require(condition=False, reason=f"there is no Restate server: {error}")
    folder = tmp_path_factory.mktemp("cluster")
    with ExitStack() as stack:
        yield ground_of(stack.enter_context(Cluster(folder)), stack, folder)


@bitten_by("a new key per attempt")
def test_nodes_are_killed_under_load(arena: Arena) -> None:
    """What a node had taken, another knows: a send that is repeated there is the same one."""
    cluster: Cluster = arena.ground.server  # type: ignore[assignment] # as one server: that is the point
    arena.record()
    gate = arena.hold_answers(arena.number // 4)
    relay = arena.start_relay()
    gate.wait_for(IN_FLIGHT // 2)
    for node in cluster.nodes[1:]:
        node.kill()
        # Nobody hears what it answered, and the relay meets a cluster of two.
        gate.drop()
        arena.ingress.rule = lambda _request: PASS
        wait_until_it_goes_on(arena)
        node.start()
        node.wait_until_ready()
    assert relay.running, relay.log_tail()
    arena.wait_until_idle()
    arena.judge("cluster of three, two of them killed in turn", but_forgetful=True)


def wait_until_it_goes_on(arena: Arena) -> None:
    """Wait until more was taken, or all has been."""
    taken = arena.ingress.sends.accepted
    wait_for(
        lambda: arena.ingress.sends.accepted > taken or not Invocation.objects.unsent().exists(),
        timeout=PATIENCE,
        what="the cluster to take more",
    )
