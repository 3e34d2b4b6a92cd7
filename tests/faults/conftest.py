"""The ground that faults are done on, and the table at the end of the run."""

from __future__ import annotations

import os
import re
import secrets
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.arena import ROOT, Arena, Ground, start_ground

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark every test of this package: ``pytest -m faults`` runs them, and ``pytest`` alone does not.

    ``FAULTS_TURN=1/3`` takes every third fault, with its mutants: three runs on three databases do each fault once.
    """
    here = ROOT / "tests" / "faults"
    ours = [item for item in items if here in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.faults)
        item.add_marker(pytest.mark.django_db(transaction=True))
    turn, turns = map(int, os.environ.get("FAULTS_TURN", "1/1").split("/"))
    faults = {name: number for number, name in enumerate(dict.fromkeys(_fault_of(item) for item in ours))}
    passed_over = [item for item in ours if faults[_fault_of(item)] % turns != turn - 1]
    if passed_over:
        config.hook.pytest_deselected(items=passed_over)
        items[:] = [item for item in items if item not in passed_over]


def _fault_of(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """The server that most faults leave alone."""
    with ExitStack() as stack:
        yield start_ground(stack, tmp_path_factory.mktemp("ground"))


@pytest.fixture(scope="module")
def own_ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """A server of a module's own, to kill, stop and wipe."""
    with ExitStack() as stack:
        yield start_ground(stack, tmp_path_factory.mktemp("ground"))


@pytest.fixture
def arena(request: pytest.FixtureRequest, tmp_path: Path, settings: Any) -> Iterator[Arena]:
    """One fault. ``bitten_by`` names the mutants; a module that calls its server ``own_ground`` kills it."""
    name = "own_ground" if "own_ground" in request.fixturenames else "ground"
    ground: Ground = request.getfixturevalue(name)
    # Restate remembers the keys of the last fault: no two have an order of the same name.
    prefix = re.sub(r"\W+", "-", f"{request.node.name}-{secrets.token_hex(3)}")
    arena = Arena(ground, getattr(request, "param", ""), tmp_path, prefix, settings)
    arena.use_directly()
    try:
        yield arena
    finally:
        arena.stop()
        ground.ingress.reset()
        ground.admin.reset()
