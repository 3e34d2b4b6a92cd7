# Written by restate_codegen of restate-django, from what a Restate server says about its services. Changes
# are lost: write it anew with  manage.py restate_codegen --style pydantic
"""Typed targets of the Restate services Agent, Cart, Greeter, Mailer, OrderWorkflow, Report."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from restate_django import typed
from restate_django.typed_models import Model


class AgentQuestion(Model):
    """Something that somebody wants to know."""

    book: Annotated[str, Field(description="The name of the book that the steps are noted in.")]
    pace: Annotated[float, Field(description="Seconds between two steps.")] = 1
    question: str
    topic: str


class Answer(Model):
    """What the agent found out."""

    answer: str
    model: Annotated[str, Field(description="The name of the model that gave the answer.")]
    sources: list[str]


class Content(Model):
    """A cart's content, and the moment of the change that made it: of two changes, the later one is right."""

    changed_at: float
    items: dict[str, int]


class Figures(Model):
    """What the warehouse says."""

    parcels: int
    report: str
    returns: int


class Item(Model):
    """A product, and how many of it."""

    quantity: int = 1
    sku: str


class Line(Model):
    """A product, and how many of it."""

    quantity: int
    sku: str


class Mail(Model):
    """A text for somebody."""

    text: str = ""
    to: str


class OrderedGoods(Model):
    """What is to be brought to somebody's door."""

    lines: list[Line]
    pace: Annotated[float, Field(description="How many seconds each step takes, so that people can watch.")] = 3
    total: Annotated[int, Field(description="In cents.")] = 0


class Person(Model):
    """Somebody to greet."""

    name: str = ""


class Product(Model):
    """A product, however many there are."""

    sku: str


class ReportOrder(Model):
    """Which report is to be built."""

    report: str


class Sent(Model):
    """A mail that is on its way."""

    sent_at: str
    sent_to: str


class Shipped(Model):
    """The number of a parcel that is on its way."""

    parcel: str


class Agent(typed.ServiceTarget, service="Agent"):
    """Answers questions about the shop, step by step."""

    @property
    def ask(self) -> typed.Handler[AgentQuestion, Answer]:
        """Plan, look up, answer.

        Args:
            ctx: The context.
            asked: What somebody wants to know.

        Returns:
            What was found out.
        """
        return self._handler("ask", Answer)


class Cart(typed.ObjectTarget, service="Cart"):
    """A visitor's cart. Its key is the visitor's."""

    @property
    def add(self) -> typed.Handler[Item, Content]:
        """Add a quantity of a product, and give the cart's new content."""
        return self._handler("add", Content)

    @property
    def clear(self) -> typed.Handler[typed.NoPayload, Content]:
        """Empty the cart."""
        return self._handler("clear", Content)

    @property
    def get(self) -> typed.Handler[typed.NoPayload, dict[str, Any]]:
        """Give the cart's content."""
        return self._handler("get")

    @property
    def remove(self) -> typed.Handler[Product, Content]:
        """Take a product out, however many there are, and give the cart's new content."""
        return self._handler("remove", Content)


class Greeter(typed.ServiceTarget, service="Greeter"):
    """Greets whoever asks."""

    @property
    def greet(self) -> typed.Handler[Person, str]:
        """Greet by name; somebody without one is refused for good."""
        return self._handler("greet")


class Mailer(typed.ServiceTarget, service="Mailer"):
    """Writes to people."""

    @property
    def remind(self) -> typed.Handler[Mail, Sent]:
        """Send one reminder; the mail server of this shop is a book."""
        return self._handler("remind", Sent)


class OrderWorkflow(typed.WorkflowTarget, service="OrderWorkflow"):
    """Reserve, charge, pack and ship an order."""

    @property
    def run(self) -> typed.MainHandler[OrderedGoods, Shipped]:
        """Bring one order to its end.

        Args:
            ctx: The workflow's context; its key is the order's number.
            order: What to bring.

        Returns:
            The parcel's number.

        Raises:
            TerminalError: The shelf does not hold that many (nothing to undo), or the order was cancelled
            (undone).
        """
        return self._main_handler("run", Shipped)

    @property
    def status(self) -> typed.Handler[typed.NoPayload, str]:
        """Tell what the order is being prepared for."""
        return self._handler("status")


class Report(typed.ServiceTarget, service="Report"):
    """Builds sales reports, once the warehouse answers."""

    @property
    def build(self) -> typed.Handler[ReportOrder, Figures]:
        """Ask the warehouse for its figures. It answers when somebody has repaired its line for this report."""
        return self._handler("build", Figures)
