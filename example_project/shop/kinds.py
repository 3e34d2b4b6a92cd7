"""One invocation of each kind, run to its end: what ``demo_check`` runs, and a tour of the public functions.

A story sends, yields while it waits, and is done when its row says so. It reads rows only: the Celery worker moves
them.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from restate_django import operations, send
from restate_django.lifecycle import FINISHED, NEEDS_ATTENTION, Status
from services import books

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from restate_django.models import Invocation

_CLOCKS = timedelta(seconds=2)  # how far apart the clocks of Restate and of this machine may be


class WrongError(Exception):
    """A story did not go as it should."""


@dataclass
class Run:
    """One story under way.

    Attributes:
        kind: Its name.
        wanted: The status that its row should end in.
        row: The invocation that its line is about.
        problem: What went wrong; empty when it went as it should.
        seconds: How long it took.
    """

    kind: str
    wanted: Status
    story: Callable[[Run], Iterator[None]]
    row: Invocation | None = None
    problem: str = ""
    seconds: float = 0.0
    _steps: Iterator[None] | None = field(default=None, repr=False)
    _since: float = 0.0

    def step(self) -> bool:
        """Go on as far as possible now; tell whether it is over."""
        if self._steps is None:
            self._steps, self._since = self.story(self), time.monotonic()
        self.seconds = time.monotonic() - self._since
        try:
            next(self._steps)
        except StopIteration:
            if self.status != self.wanted:
                self.problem = f"should have ended as {self.wanted}"
            return True
        except WrongError as error:
            self.problem = str(error)
            return True
        except Exception as error:  # noqa: BLE001 - one story that breaks must not take the others along
            self.problem = f"{type(error).__name__}: {error}"
            return True
        return False

    def give_up(self) -> None:
        """The time is over."""
        self.problem = f"should have ended as {self.wanted} in time"

    @property
    def status(self) -> str:
        """The status of its row, as last read."""
        return str(self.row.status) if self.row else "not sent"

    @property
    def reason(self) -> str:
        """Why it stands where it stands, as far as the row says."""
        row = self.row
        said = (row.delivery_error or row.failure_message or row.last_failure) if row else ""
        return said.split("\n")[0][:160]

    def send(self, *args: Any, **kwargs: Any) -> Invocation:
        """Send, and make this row the one that the line is about."""
        self.row = send(*args, **kwargs)
        return self.row

    def wait(self, *statuses: Status) -> Iterator[None]:
        """Wait until the row has one of the statuses, or has come to an end of any kind."""
        if self.row is None:
            raise WrongError("nothing was sent")
        while self.row.status not in {*statuses, *FINISHED, *NEEDS_ATTENTION}:
            yield
            self.row.refresh_from_db()

    def expect(self, condition: object, problem: str) -> None:
        """Stop the story when something is not as it should be."""
        if not condition:
            raise WrongError(problem)


def all_runs() -> list[Run]:
    """Return a fresh run of each kind."""
    return [Run(name, wanted, story) for name, wanted, story in _KINDS]


# ---------------------------------------------------------------- the stories


def _service(run: Run) -> Iterator[None]:
    run.send("Greeter", "greet", {"name": "Mary"})
    yield from run.wait()
    _expect_output(run, "Hello, Mary!")


def _object(run: Run) -> Iterator[None]:
    key = f"cart-{uuid.uuid4().hex}"
    run.send("Cart", "add", {"sku": "mug", "quantity": 2}, key=key)
    yield from run.wait()
    _expect_cart(run, {"mug": 2})
    run.send("Cart", "add", {"sku": "mug", "quantity": 1}, key=key)
    yield from run.wait()
    _expect_cart(run, {"mug": 3})


def _workflow(run: Run) -> Iterator[None]:
    order = str(uuid.uuid4())
    run.send("OrderWorkflow", "run", _order(pace=0.5), key=order)
    yield from run.wait()
    done = [line["entry"] for line in books.read(f"order-{order}")]
    if run.status == Status.SUCCEEDED:
        run.expect(done == ["Stock reserved", "Card charged", "Parcel packed", "Shipped"], f"its steps were {done}")


def _delayed(run: Run) -> Iterator[None]:
    delay = timedelta(seconds=3)
    row = run.send("Mailer", "remind", {"to": "mary@example.com", "text": "Water the plant"}, delay=delay)
    yield from run.wait()
    if run.status == Status.SUCCEEDED:
        sent_at = datetime.fromisoformat(row.output_value["sent_at"])
        run.expect(sent_at >= row.created_at + delay - _CLOCKS, f"it ran too early, at {sent_at}")


def _idempotent_repeat(run: Run) -> Iterator[None]:
    key = f"welcome-{uuid.uuid4()}"
    mail = {"to": f"{key}@example.com", "text": "Welcome"}
    first = run.send("Mailer", "remind", mail, idempotency_key=key)
    again = send("Mailer", "remind", mail, idempotency_key=key)
    run.expect(first.created, "the first send found a row already")
    run.expect(not again.created and again.pk == first.pk, "the second send made another row")
    yield from run.wait()
    late = send("Mailer", "remind", mail, idempotency_key=key)
    run.expect(not late.created and late.pk == first.pk, "a send after its end made another row")
    if run.status == Status.SUCCEEDED:
        mails = [line for line in books.read("mail") if line.get("to") == mail["to"]]
        run.expect(len(mails) == 1, f"{len(mails)} mails were sent")


def _terminal_failure(run: Run) -> Iterator[None]:
    row = run.send("Greeter", "greet", {"name": ""})
    yield from run.wait()
    if run.status == Status.FAILED:
        run.expect(row.failure_code == 422, f"its failure has the code {row.failure_code}")  # noqa: PLR2004 - the handler's


def _paused(run: Run) -> Iterator[None]:
    row = run.send("Report", "build", {"report": str(uuid.uuid4())})
    yield from run.wait(Status.PAUSED)
    if run.status == Status.PAUSED:
        why = "the warehouse does not answer"
        run.expect(why in row.last_failure, f"it was not paused because {why}")


def _cancelled_while_running(run: Run) -> Iterator[None]:
    order = str(uuid.uuid4())
    row = run.send("OrderWorkflow", "run", _order(pace=60), key=order)
    yield from run.wait(Status.RUNNING, Status.SUSPENDED)
    while "Stock reserved" not in [line["entry"] for line in books.read(f"order-{order}")]:
        yield
    _cancel(row)
    yield from run.wait()
    if run.status == Status.CANCELLED:
        done = [line["entry"] for line in books.read(f"order-{order}")]
        run.expect(done == ["Stock reserved", "Stock released"], f"its compensation was not run: {done}")


def _cancelled_before_it_started(run: Run) -> Iterator[None]:
    mail = {"to": f"{uuid.uuid4()}@example.com", "text": "Never"}
    row = run.send("Mailer", "remind", mail, delay=timedelta(hours=1))
    yield from run.wait(Status.ACCEPTED, Status.SCHEDULED)
    _cancel(row)
    yield from run.wait()
    run.expect(not [line for line in books.read("mail") if line.get("to") == mail["to"]], "the mail was sent")


def _agent(run: Run) -> Iterator[None]:
    question = {"topic": "shipping", "question": "How fast is a mug here?", "book": f"question-{uuid.uuid4()}"}
    row = run.send("Agent", "ask", {**question, "pace": 0.2})
    yield from run.wait()
    if run.status == Status.SUCCEEDED:
        run.expect(row.output_value["answer"], "it has no answer")
        steps = [line["entry"] for line in books.read(question["book"])]
        run.expect(steps[:1] == ["Plan"], f"its steps were {steps}")


_KINDS: tuple[tuple[str, Status, Callable[[Run], Iterator[None]]], ...] = (
    ("service", Status.SUCCEEDED, _service),
    ("object", Status.SUCCEEDED, _object),
    ("workflow", Status.SUCCEEDED, _workflow),
    ("delayed", Status.SUCCEEDED, _delayed),
    ("idempotent repeat", Status.SUCCEEDED, _idempotent_repeat),
    ("terminal failure", Status.FAILED, _terminal_failure),
    ("paused", Status.PAUSED, _paused),
    ("cancelled while running", Status.CANCELLED, _cancelled_while_running),
    ("cancelled before it started", Status.CANCELLED, _cancelled_before_it_started),
    ("agent", Status.SUCCEEDED, _agent),
)


def _order(*, pace: float) -> dict[str, Any]:
    return {"lines": [{"sku": "mug", "quantity": 1}], "total": 1800, "pace": pace}


def _expect_output(run: Run, wanted: Any) -> None:
    if run.row is not None and run.status == Status.SUCCEEDED:
        run.expect(run.row.output_value == wanted, f"its output is {run.row.output_value!r}, not {wanted!r}")


def _expect_cart(run: Run, wanted: dict[str, int]) -> None:
    if run.row is not None and run.status == Status.SUCCEEDED:
        run.expect(run.row.output_value["items"] == wanted, f"the cart holds {run.row.output_value!r}, not {wanted!r}")


def _cancel(row: Invocation) -> None:
    if row.status in FINISHED:
        return
    report = operations.cancel(row)
    for _, reason in [*report.passed_over, *report.refused]:
        raise WrongError(f"could not be cancelled: {reason}")
    row.refresh_from_db()
