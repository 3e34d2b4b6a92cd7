"""Three Restate servers that are one: each keeps what another keeps as well, and a balancer stands before them.

What is done to them is done to child processes on this machine; a cluster on three hosts has the same settings.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, Self

import requests

from restate_django.testing.binary import find_binary
from restate_django.testing.process import LOOPBACK, ChildProcess, claim_port
from tests.conftest import ROOT
from tests.faults.proxy import Balancer

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from restate_django.testing.process import ClaimedPort

#: With three, one may be gone and the others still are the most of them.
NODES: Final = 3
#: Seconds that the first start may take: they have to find each other.
PATIENCE: Final = 90.0


class Node:
    """One server of the cluster.

    Args:
        number: From 1 on.
        folder: Where its data and its log are.
        nodes: Where all of them talk to each other, once that is known.
    """

    def __init__(self, number: int, folder: Path, nodes: list[str]) -> None:
        self.number = number
        self.folder = folder
        self._nodes = nodes
        self._claims: list[ClaimedPort] = [claim_port() for _ in range(3)]
        self.ingress_port, self.admin_port, self.node_port = (claim.number for claim in self._claims)
        nodes.append(f"http://{LOOPBACK}:{self.node_port}")
        self._process: ChildProcess | None = None

    def start(self) -> None:
        """Start it. Whether it is ready is another question: it needs the others for that."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # What the example project tells its nodes, and what is another thing on one machine.
        env = {
            "RESTATE_CONFIG": str(ROOT / "example_project" / "restate.toml"),
            "RESTATE_NODE_NAME": f"node-{self.number}",
            "RESTATE_BASE_DIR": str(self.folder),
            "RESTATE_BIND_ADDRESS": f"{LOOPBACK}:{self.node_port}",
            "RESTATE_ADVERTISED_ADDRESS": f"http://{LOOPBACK}:{self.node_port}",
            "RESTATE_INGRESS__BIND_ADDRESS": f"{LOOPBACK}:{self.ingress_port}",
            "RESTATE_ADMIN__BIND_ADDRESS": f"{LOOPBACK}:{self.admin_port}",
            # One of them makes the cluster, the others come to it.
            "RESTATE_AUTO_PROVISION": "true" if self.number == 1 else "false",
            "RESTATE_METADATA_CLIENT__ADDRESSES": json.dumps(self._nodes),
            "RESTATE_DEFAULT_NUM_PARTITIONS": "4",
            "RESTATE_ROCKSDB_TOTAL_MEMORY_SIZE": "256MB",
            "RESTATE_LISTEN_MODE": "tcp",
            "RESTATE_DISABLE_TELEMETRY": "true",
            "RESTATE_LOG_DISABLE_ANSI_CODES": "true",
        }
        self._process = ChildProcess(
            [find_binary(), "--no-logo"],
            name=f"Node {self.number}",
            log_file=self.folder / "server.log",
            env=env,
            cwd=self.folder,
        )
        self._process.start()

    def wait_until_ready(self) -> None:
        """Wait until its ingress and its Admin API say that they are healthy."""
        assert self._process is not None
        with requests.Session() as session:
            session.trust_env = False

            def is_healthy() -> bool:
                urls = (f"http://{LOOPBACK}:{self.ingress_port}/restate/health", f"{self.admin_url}/health")
                try:
                    return all(session.get(url, timeout=2).ok for url in urls)
                except requests.RequestException:
                    return False

            self._process.wait_until(is_healthy, timeout=PATIENCE)

    @property
    def admin_url(self) -> str:
        """Its own Admin API."""
        return f"http://{LOOPBACK}:{self.admin_port}"

    def kill(self) -> None:
        """End it with SIGKILL."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End it for good: others may have its ports."""
        self.kill()
        for claim in self._claims:
            claim.release()


class Cluster:
    """Three nodes and the balancers before them; to whoever asks it is one server.

    Attributes:
        nodes: The servers.
    """

    def __init__(self, folder: Path) -> None:
        addresses: list[str] = []
        self.nodes = [Node(number, folder / f"node-{number}", addresses) for number in range(1, NODES + 1)]
        self._ingress = Balancer([node.ingress_port for node in self.nodes])
        self._admin = Balancer([node.admin_port for node in self.nodes])

    @property
    def ingress_url(self) -> str:
        """The ingress of whichever node is there."""
        return f"http://{LOOPBACK}:{self._ingress.port}"

    @property
    def admin_url(self) -> str:
        """The Admin API of whichever node is there."""
        return f"http://{LOOPBACK}:{self._admin.port}"

    def __enter__(self) -> Self:
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            node.wait_until_ready()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for node in self.nodes:
            node.close()
        self._ingress.close()
        self._admin.close()
