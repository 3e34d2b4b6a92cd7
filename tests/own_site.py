"""A site of a project's own, for the views, tags and forms that such sites are built with."""

from __future__ import annotations

from django import forms
from django.http import HttpResponse
from django.shortcuts import redirect
from django.template import RequestContext, Template
from django.urls import include, path, reverse_lazy
from django.views.decorators.cache import never_cache
from django.views.generic.edit import FormView

from restate_django import send
from restate_django.forms import IdempotentFormMixin, IdempotentViewMixin, idempotency_key
from restate_django.models import Invocation
from tests.models import Order

PAGE = """<!doctype html><html lang="en"><head><title>Own</title></head><body><h1>Own</h1>
{% load restate_django %}{% for message in messages %}<p class="message">{{ message }}</p>{% endfor %}"""


def page(request, body, **context):
    """Render a body in the site's page."""
    return HttpResponse(Template(PAGE + body).render(RequestContext(request, context)))


def invocation(request, pk):
    """The page of one invocation, with a button."""
    row = Invocation.objects.get(pk=pk)
    return page(request, "{% invocation_status invocation cancel=True %}", invocation=row)


def by_htmx(request, pk, version):
    """The page of one invocation, whose badge htmx renews."""
    row = Invocation.objects.get(pk=pk)
    # Under a strict policy htmx writes no style of its own.
    body = """<meta name="htmx-config" content='{"includeIndicatorStyles": false, "allowEval": false}'>
{% load static %}<script src="{% static script %}" defer></script>{% invocation_status invocation htmx=True %}"""
    return page(request, body, invocation=row, script=f"django_htmx/htmx-{version}.min.js")


@never_cache
def greet(request):
    """A form without a form class. The browser has to ask for it anew when it goes back to it."""
    if request.method == "POST":
        name = request.POST.get("name", "")
        row = send("Greeter", "greet", {"name": name}, idempotency_key=idempotency_key(request))
        return redirect("invocation", row.pk)
    form = '<form method="post">{% csrf_token %}{% idempotency_key %}<input name="name"><button>Greet</button></form>'
    return page(request, form)


class GreetingForm(IdempotentFormMixin, forms.Form):
    """Somebody to greet."""

    name = forms.CharField()


class Greet(IdempotentViewMixin, FormView):
    """The same with a form class. It records who was greeted, and sends, or neither."""

    form_class = GreetingForm
    success_url = reverse_lazy("greet-by-class")

    def form_valid(self, form):
        order = Order.objects.create(number=form.cleaned_data["name"])
        send("Greeter", "greet", {"name": order.number}, idempotency_key=form.idempotency_key)
        return super().form_valid(form)

    def render_to_response(self, context, **_):
        form = context["form"]
        body = '{{ form.media }}<form method="post">{% csrf_token %}{{ form }}<button>Greet</button></form>{{ orders }}'
        # A query, as many a page makes one.
        return page(self.request, body, form=form, orders=Order.objects.count())


urlpatterns = [
    path("restate/", include("restate_django.urls")),
    path("invocations/<uuid:pk>/", invocation, name="invocation"),
    path("htmx/<int:version>/<uuid:pk>/", by_htmx),
    path("greet/", greet, name="greet"),
    path("greet-too/", greet, name="greet-too"),
    path("greet-by-class/", Greet.as_view(), name="greet-by-class"),
]
