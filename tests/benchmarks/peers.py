"""What the app is compared with, each in its simplest fair form. A peer that is not here raises ``AbsentError``.

Each function does a number of sends and returns how many it did per second; what it needs first (a connection, a warm
event loop) is not timed.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
import uuid
from functools import cache
from itertools import repeat
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import requests

from restate_django.testing.binary import cache_dir
from tests.benchmarks.lab import AbsentError, rate
from tests.benchmarks.wire import BODY, DELAY_HOURS, PAYLOAD, SEND_PATH

if TYPE_CHECKING:
    from collections.abc import Sequence

#: How to get the packages of the peers.
INSTALL = "pip install -e '.[bench]'"
IN_FLIGHT = 64
_TYPESCRIPT = "@restatedev/restate-sdk-clients"

# ---------------------------------------------------------------- one after the other


def bare_posts(url: str, count: int) -> float:
    """A loop of ``requests.Session().post``, as anybody would write it."""
    with requests.Session() as session:

        def post() -> None:
            session.post(f"{url}{SEND_PATH}", json=PAYLOAD, timeout=10).raise_for_status()

        post()
        return rate(count, lambda: [post() for _ in range(count)])


def bare_post_times(url: str, count: int) -> list[float]:
    """The milliseconds that each POST of such a loop takes."""
    times = []
    with requests.Session() as session:
        for number in range(count + 1):
            start = perf_counter()
            session.post(f"{url}{SEND_PATH}", json=PAYLOAD, timeout=10).raise_for_status()
            if number:
                times.append((perf_counter() - start) * 1000)
    return times


def bare_outputs(url: str, ids: Sequence[str]) -> float:
    """A loop of ``requests.Session().get`` over ``/restate/output/{id}``, one for each row."""
    with requests.Session() as session:

        def get(invocation_id: str) -> None:
            session.get(f"{url}/restate/output/{invocation_id}", timeout=10)

        get(ids[0])
        return rate(len(ids), lambda: [get(invocation_id) for invocation_id in ids])


# ---------------------------------------------------------------- as fast as it goes


def wrk(url: str, connections: int, seconds: float) -> float:
    """What the server takes from a load generator written in C."""
    program = shutil.which("wrk")
    if program is None:
        raise AbsentError("there is no wrk: apt install wrk")
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "send.lua")
        script.write_text(
            f"wrk.method = 'POST'\nwrk.body = '{BODY.decode()}'\nwrk.headers['Content-Type'] = 'application/json'\n"
            "done = function(summary) io.write(string.format('RESULT %d %d %d\\n', summary.requests, "
            "summary.duration, summary.errors.status + summary.errors.read + summary.errors.connect)) end\n"
        )
        # wrk counts in whole seconds.
        options = [f"-c{connections}", "-t1", f"-d{max(1, round(seconds))}s", "-s", str(script)]
        answer = subprocess.run([program, *options, f"{url}{SEND_PATH}"], capture_output=True, text=True, check=True)
    found = next(line for line in answer.stdout.splitlines() if line.startswith("RESULT"))
    requests_done, microseconds, errors = map(int, found.split()[1:])
    if errors or not requests_done:
        raise RuntimeError(f"wrk saw {requests_done} answers and {errors} errors:\n{answer.stdout}")
    return requests_done / microseconds * 1e6


def python_client(url: str, count: int) -> float:
    """The official Python SDK's client on one event loop, with 64 sends in flight."""
    if importlib.util.find_spec("restate") is None or importlib.util.find_spec("httpx") is None:
        raise AbsentError(f"the official Python client is not installed: {INSTALL}")
    return asyncio.run(_python_client(url, count))


async def _python_client(url: str, count: int) -> float:
    import restate.client

    async with restate.client.create_client(url) as client:

        async def work(jobs: Any) -> None:
            for _ in jobs:
                # Its own delay is a number without a unit, which the server refuses: the path carries ours.
                await client.generic_send(
                    "Greeter",
                    f"greet/send?delay={DELAY_HOURS}h&x=",
                    json.dumps(PAYLOAD).encode(),
                    headers={"Content-Type": "application/json"},
                )

        await asyncio.gather(*(work(repeat(None, 1)) for _ in range(IN_FLIGHT)))
        jobs = iter(range(count))
        start = perf_counter()
        await asyncio.gather(*(work(jobs) for _ in range(IN_FLIGHT)))
        return count / (perf_counter() - start)


def typescript_client(url: str, count: int) -> float:
    """The official TypeScript client on node, with 64 sends in flight."""
    node, folder = _typescript()
    script = folder / f"send-{uuid.uuid4().hex}.mjs"
    script.write_text(_SEND_TS)
    try:
        answer = subprocess.run(
            [node, str(script), url, str(count), str(IN_FLIGHT), str(DELAY_HOURS)],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        script.unlink()
    if answer.returncode:
        raise RuntimeError(f"The TypeScript client failed:\n{answer.stderr}")
    return count / float(answer.stdout)


_SEND_TS = """\
import * as clients from "@restatedev/restate-sdk-clients";
const [url, count, inFlight, hours] = process.argv.slice(2);
const greeter = clients.connect({ url }).serviceSendClient({ name: "Greeter" });
const options = clients.rpc.sendOpts({ delay: { hours: Number(hours) } });
let left = 0;
const work = async () => {
  while (left-- > 0) await greeter.greet({ name: "Mary" }, options);
};
const all = (number) => {
  left = number;
  return Promise.all(Array.from({ length: Number(inFlight) }, work));
};
await all(Number(inFlight));
const start = performance.now();
await all(Number(count));
console.log((performance.now() - start) / 1000);
"""


@cache
def _typescript() -> tuple[str, Path]:
    """Return node, and the cached folder with the client, which npm installs at the first need."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None:
        raise AbsentError("there is no node for the official TypeScript client")
    folder = cache_dir() / "benchmarks"
    if not (folder / "node_modules" / _TYPESCRIPT).exists():
        if npm is None:
            raise AbsentError("there is no npm to install the official TypeScript client with")
        folder.mkdir(parents=True, exist_ok=True)
        argv = [npm, "install", "--prefix", str(folder), "--no-save", "--no-audit", "--no-fund", "--ignore-scripts"]
        answer = subprocess.run([*argv, _TYPESCRIPT], capture_output=True, text=True, check=False, cwd=folder)
        if answer.returncode:
            raise AbsentError(f"npm could not install {_TYPESCRIPT}: {answer.stderr.strip().splitlines()[-1:]}")
    return node, folder


# ---------------------------------------------------------------- recording


def django_tasks_db(count: int) -> float:
    """``enqueue`` of ``django-tasks-db``: a row for each, on the same database, in one transaction."""
    from django.apps import apps
    from django.db import transaction

    if not apps.is_installed("django_tasks_db"):
        raise AbsentError(f"django-tasks-db is not installed: {INSTALL}")
    from tests.benchmarks.tasks import greet

    with transaction.atomic():
        speed = rate(count, lambda: [greet.enqueue(**PAYLOAD) for _ in range(count)])
        transaction.set_rollback(True)
    return speed


def celery_delay(count: int) -> float:
    """Celery's ``.delay()`` on Redis, into a queue of its own that is removed afterwards."""
    if importlib.util.find_spec("redis") is None:
        raise AbsentError(f"the package redis is not installed: {INSTALL}")
    from celery import Celery

    url = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
    queue = f"restate-django-benchmarks-{uuid.uuid4().hex}"
    app = Celery("benchmarks", broker=url, set_as_current=False)
    app.conf.update(task_default_queue=queue, task_ignore_result=True)

    def greet(name: str) -> str:
        return f"Hello, {name}!"

    task = app.task(greet)
    try:
        with app.connection_for_write() as connection:
            try:
                connection.ensure_connection(max_retries=1, timeout=2)
            except connection.connection_errors as error:
                raise AbsentError(f"no Redis answers at REDIS_URL ({url}): {error}") from error
            task.delay(**PAYLOAD)
            speed = rate(count, lambda: [task.delay(**PAYLOAD) for _ in range(count)])
    finally:
        app.close()
        _forget(url, queue)
    return speed


def _forget(url: str, queue: str) -> None:
    """Remove a queue and what kombu noted about it: its own ``queue_delete`` leaves both (seen with kombu 5.7)."""
    import redis

    with contextlib.suppress(redis.ConnectionError), redis.Redis.from_url(url) as client:
        for key in client.scan_iter(f"*{queue}*", count=10_000):
            client.delete(key)
