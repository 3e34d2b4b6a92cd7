"""The shop's pages. Each action is an invocation, sent inside the transaction that records why.

A page never waits for Restate (but ``hello``, which shows how ``call`` does): it shows what the rows say. Where a
badge is all that moves, the app's own tag keeps it live; where more does, a few lines of JavaScript ask the page's
address again with ``?live`` until nothing is open any more. What there is to send to, and with what, stands in
``targets``, which ``restate_codegen`` has written.
"""

from __future__ import annotations

import json
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.template.loader import render_to_string
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from restate_django import operations
from restate_django.exceptions import CallTimeout, InvocationFailed, OutcomeUnknown, Unavailable
from restate_django.models import Invocation
from services import books
from shop import catalogue, targets
from shop.forms import GreetingForm, ItemForm, OrderForm, QuestionForm, ReminderForm
from shop.models import Order, Question, Reminder, Report

if TYPE_CHECKING:
    from collections.abc import Iterable

    from restate_django.querysets import InvocationQuerySet
    from shop.models import Asked

TOPICS = ("shipping", "returns", "mugs", "plants")
_SHOWN = 20


# ---------------------------------------------------------------- who is asking, and how a page stays live


def visitor_of(request: HttpRequest) -> str:
    """Return the visitor's number, which lives in the session; a new one gets one."""
    visitor = request.session.get("visitor")
    if not isinstance(visitor, str):
        visitor = request.session["visitor"] = uuid.uuid4().hex
    return visitor


def page(
    request: HttpRequest, name: str, invocations: Iterable[Invocation | None], context: dict[str, Any]
) -> HttpResponse:
    """Answer with a page, or, for ``?live``, with the part of it that changes.

    Args:
        request: The request.
        name: The page's name: its templates are ``shop/<name>.html`` and ``shop/live/<name>.html``.
        invocations: What the page shows; it stays live while one of them is open.
        context: What the templates need.
    """
    is_open = any(invocation is not None and invocation.is_open for invocation in invocations)
    context = {**context, "name": name, "live": f"shop/live/{name}.html", "open": is_open}
    if "live" in request.GET:
        return JsonResponse({"open": is_open, "html": render_to_string(context["live"], context, request)})
    return render(request, f"shop/{name}.html", context)


def with_invocations(things: Iterable[Asked]) -> list[tuple[Any, Invocation | None]]:
    """Pair what was asked for with what became of it."""
    return [(thing, thing.invocation) for thing in things]


def say_refusals(request: HttpRequest, form: Any) -> None:
    """Tell the visitor what was wrong with a form that has no page of its own."""
    for errors in form.errors.values():
        for error in errors:
            messages.error(request, error)


# ---------------------------------------------------------------- orders: a workflow


@never_cache
@require_GET
def shelf(request: HttpRequest) -> HttpResponse:
    """The products. Each form has an idempotency key of its own: what it makes, it makes once."""
    return render(request, "shop/shelf.html", {"name": "shelf", "products": catalogue.PRODUCTS})


@never_cache
@require_http_methods(["GET", "POST"])
def orders(request: HttpRequest) -> HttpResponse:
    """The visitor's orders; a POST places one, of the product in the form or of what is in the cart."""
    visitor = visitor_of(request)
    if request.method == "GET":
        mine = with_invocations(Order.objects.filter(visitor=visitor)[:_SHOWN])
        return render(request, "shop/orders.html", {"name": "orders", "orders": mine})
    form = OrderForm(request.POST, request=request)
    if not form.is_valid():
        say_refusals(request, form)
        return redirect("shop:shelf")
    placed = Order.objects.filter(token=form.idempotency_key).first()
    if placed is None:
        items = form.items() or cart_items(visitor)
        if not items:
            messages.error(request, "There is nothing in the cart to order.")
            return redirect("shop:cart")
        placed = place_order(request, form.idempotency_key, items, empty_cart=not form.items())
    return redirect(placed)


def place_order(request: HttpRequest, token: str, items: dict[str, int], *, empty_cart: bool) -> Order:
    """Place an order, once per token.

    The order, its invocation and the cart's are recorded in one transaction: all of them, or none. A second POST of the
    same form finds the order that the first one made, even while both are under way.
    """
    visitor = visitor_of(request)
    with transaction.atomic():
        order, created = Order.objects.get_or_create(
            token=token, defaults={"visitor": visitor, "items": items, "total": catalogue.total(items)}
        )
        if created:
            goods = targets.OrderedGoods(
                lines=[targets.Line(sku=sku, quantity=quantity) for sku, quantity in items.items()],
                total=order.total,
                pace=settings.SHOP_PACE,
            )
            targets.OrderWorkflow(str(order.pk)).run.send(goods, related_to=order, requested_by=request.user)
            if empty_cart:
                cart_of(visitor).clear.send(requested_by=request.user)
    return order


@never_cache
@require_GET
def order(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """One order: how far it is, and what was done for it."""
    mine = get_object_or_404(Order, pk=pk, visitor=visitor_of(request))
    invocation = mine.invocation
    return page(
        request,
        "order",
        [invocation],
        {
            "order": mine,
            "lines": catalogue.describe(mine.items),
            "invocation": invocation,
            "steps": books.read(f"order-{mine.pk}"),
        },
    )


@require_POST
def cancel_order(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Ask for an order's cancellation. Restate tells the workflow, and that undoes what it did."""
    mine = get_object_or_404(Order, pk=pk, visitor=visitor_of(request))
    report = operations.cancel(Invocation.objects.for_object(mine))
    for _, reason in [*report.passed_over, *report.refused]:
        messages.error(request, f"Not cancelled: {reason}")
    for _, what in report.done:
        messages.success(request, what)
    return redirect(mine)


# ---------------------------------------------------------------- the cart: a virtual object


@never_cache
@require_http_methods(["GET", "POST"])
def cart(request: HttpRequest) -> HttpResponse:
    """The visitor's cart; a POST adds to it."""
    visitor = visitor_of(request)
    if request.method == "POST":
        form = ItemForm(request.POST)
        if form.is_valid():
            cart_of(visitor).add.send(targets.Item(**form.cleaned_data), requested_by=request.user)
        else:
            say_refusals(request, form)
        return redirect("shop:cart")
    items = cart_items(visitor)
    changes = list(cart_changes(visitor).open()[:_SHOWN])
    return page(
        request,
        "cart",
        changes,
        {
            "lines": catalogue.describe(items),
            "total": catalogue.total(items),
            "changes": changes,
        },
    )


@require_POST
def remove_from_cart(request: HttpRequest) -> HttpResponse:
    """Take a product out of the cart."""
    form = ItemForm({**request.POST.dict(), "quantity": 1})
    if form.is_valid():
        product = targets.Product(sku=form.cleaned_data["sku"])
        cart_of(visitor_of(request)).remove.send(product, requested_by=request.user)
    else:
        say_refusals(request, form)
    return redirect("shop:cart")


def cart_of(visitor: str) -> targets.Cart:
    """Return a visitor's cart."""
    return targets.Cart(f"cart-{visitor}")


def cart_changes(visitor: str) -> InvocationQuerySet:
    """Return all that was ever asked of a visitor's cart."""
    changed = cart_of(visitor).add
    return Invocation.objects.for_target(changed.service, key=changed.key)


def cart_items(visitor: str) -> dict[str, int]:
    """Return the cart's content as its last change left it: each gives the whole cart back, and when that was.

    No request to Restate: the page shows what the rows know, also while the server is down. The rows themselves are in
    the order in which they were asked for; Restate may have run them in another one.
    """
    done = cart_changes(visitor).filter(status=Invocation.Status.SUCCEEDED, has_output=True)[:_SHOWN]
    carts = [cart_of(visitor).add.parse_output(change.output_value) for change in done]
    return max(carts, key=lambda cart: cart.changed_at).items if carts else {}


# ---------------------------------------------------------------- reminders: delayed


@never_cache
@require_http_methods(["GET", "POST"])
def reminders(request: HttpRequest) -> HttpResponse:
    """The visitor's reminders; a POST asks for one."""
    visitor = visitor_of(request)
    form = ReminderForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        with transaction.atomic():
            reminder = Reminder.objects.create(visitor=visitor, **form.cleaned_data)
            targets.Mailer().remind.send(
                targets.Mail(to=reminder.email, text=reminder.text),
                delay=timedelta(seconds=reminder.seconds),
                related_to=reminder,
                requested_by=request.user,
            )
        return redirect("shop:reminders")
    mine = with_invocations(Reminder.objects.filter(visitor=visitor)[:_SHOWN])
    return render(request, "shop/reminders.html", {"name": "reminders", "form": form, "reminders": mine})


# ---------------------------------------------------------------- reports: they end paused


@never_cache
@require_http_methods(["GET", "POST"])
def reports(request: HttpRequest) -> HttpResponse:
    """The visitor's reports; a POST orders one."""
    visitor = visitor_of(request)
    if request.method == "POST":
        with transaction.atomic():
            report = Report.objects.create(visitor=visitor)
            wanted = targets.ReportOrder(report=str(report.pk))
            targets.Report().build.send(wanted, related_to=report, requested_by=request.user)
        return redirect("shop:reports")
    mine = [
        (report, invocation, bool(books.read(f"warehouse-{report.pk}")))
        for report, invocation in with_invocations(Report.objects.filter(visitor=visitor)[:_SHOWN])
    ]
    return page(request, "reports", (row for _, row, _ in mine), {"reports": mine})


@require_POST
def repair(request: HttpRequest, pk: uuid.UUID) -> HttpResponse:
    """Repair the warehouse's line, for this report. Whoever may resume it in the admin gets it done then."""
    report = get_object_or_404(Report, pk=pk, visitor=visitor_of(request))
    books.note(f"warehouse-{report.pk}", "Line repaired")
    messages.success(request, "The warehouse answers again. A paused report goes on when it is resumed.")
    return redirect("shop:reports")


# ---------------------------------------------------------------- the agent


@require_GET
def agent_topics(request: HttpRequest) -> HttpResponse:  # noqa: ARG001 - a view is given its request
    """Lead to the first topic."""
    return redirect("shop:agent", topic=TOPICS[0])


@never_cache
@require_http_methods(["GET", "POST"])
def agent(request: HttpRequest, topic: str) -> HttpResponse:
    """The visitor's questions about a topic; a POST asks one.

    A front end posts JSON or a form and gets ``{"ok": true}``; a browser that submits the page's form without
    JavaScript gets the page again.
    """
    visitor = visitor_of(request)
    if request.method == "POST":
        form = QuestionForm(posted(request))
        if not form.is_valid():
            return JsonResponse({"ok": False, "errors": form.errors}, status=400)
        with transaction.atomic():
            question = Question.objects.create(visitor=visitor, topic=topic, text=form.text(topic))
            asked = targets.AgentQuestion(
                topic=topic, question=question.text, book=f"question-{question.pk}", pace=settings.SHOP_PACE / 3
            )
            targets.Agent().ask.send(asked, related_to=question, requested_by=request.user)
        # A browser that submits the form itself names HTML; a front end takes anything, or JSON.
        if "text/html" in request.headers.get("Accept", ""):
            return redirect("shop:agent", topic=topic)
        return JsonResponse({"ok": True})
    mine = [
        (question, invocation, books.read(f"question-{question.pk}"))
        for question, invocation in with_invocations(Question.objects.filter(visitor=visitor, topic=topic)[:_SHOWN])
    ]
    context = {"form": QuestionForm(), "topic": topic, "topics": TOPICS, "questions": mine}
    return page(request, "agent", (row for _, row, _ in mine), context)


def posted(request: HttpRequest) -> Any:
    """Return what was posted, as JSON or as a form. What is no JSON object counts as nothing said."""
    if request.content_type != "application/json":
        return request.POST
    try:
        said = json.loads(request.body)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


# ---------------------------------------------------------------- a service, waited for


@never_cache
@require_http_methods(["GET", "POST"])
def hello(request: HttpRequest) -> HttpResponse:
    """Greet the visitor: the one page that waits for an answer, with ``call`` and outside any transaction."""
    form = GreetingForm(request.POST or None)
    greeting = ""
    if request.method == "POST" and form.is_valid():
        try:
            person = targets.Person(name=form.cleaned_data["name"])
            greeting = targets.Greeter().greet.call(person, requested_by=request.user, timeout=5)
        except InvocationFailed as error:
            form.add_error(None, f"The greeter refused: {error.message}")
        except Unavailable:
            form.add_error(None, "The greeter is not there now. Nothing was done: try again later.")
        except (CallTimeout, OutcomeUnknown):
            form.add_error(None, "The greeter takes its time. The answer will be in the admin.")
    return render(request, "shop/hello.html", {"name": "hello", "form": form, "greeting": greeting})
