"""Forms with an idempotency key: one invocation for a double click, a reload and the back button, and nobody else's."""

from __future__ import annotations

import re
import threading

import pytest
from django.contrib.auth import get_user_model
from django.core.exceptions import BadRequest, ImproperlyConfigured
from django.db import connection
from django.http import QueryDict
from django.template import Context, RequestContext, Template
from django.test import Client, RequestFactory

from restate_django import forms
from restate_django.models import Invocation
from tests.models import Order
from tests.own_site import GreetingForm
from tests.wait import comes_to

pytestmark = pytest.mark.django_db(transaction=True)

GREET = "/greet/"
BY_CLASS = "/greet-by-class/"


@pytest.fixture(autouse=True)
def own_site(settings):
    settings.ROOT_URLCONF = "tests.own_site"


def token_of(answer):
    """The token that a page's form carries."""
    return re.search(r'name="idempotency_key" value="([^"]+)"', answer.content.decode())[1]


def form_of(client, address=GREET, name="Mary"):
    """Open a page, and fill its form in."""
    return {"idempotency_key": token_of(client.get(address)), "name": name}


# ---------------------------------------------------------------- one form, one invocation


@pytest.mark.parametrize("address", [GREET, BY_CLASS])
def test_a_form_that_is_sent_twice_makes_one_invocation(restate, client, address, monkeypatch):
    monkeypatch.setattr(Order.objects, "create", lambda number: Order(number=number))
    form = form_of(client, address)
    first, again = (client.post(address, form) for _ in range(2))
    assert (first.status_code, first.url) == (302, again.url)
    row = Invocation.objects.get()
    assert row.attach(timeout=10) == "Hello, Mary!"
    client.post(address, form_of(client, address))
    assert Invocation.objects.count() == 2, "a form that is opened anew asks for another one"


def test_two_clicks_at_the_same_moment_make_one_invocation(restate, client):
    form, answers, barrier = form_of(client), [], threading.Barrier(4)

    def click():
        browser = Client()
        browser.cookies = client.cookies
        barrier.wait()
        try:
            answers.append(browser.post(GREET, form).url)
        finally:
            connection.close()

    clicks = [threading.Thread(target=click) for _ in range(4)]
    for thread in clicks:
        thread.start()
    for thread in clicks:
        thread.join()
    assert len(answers) == 4
    assert len(set(answers)) == 1
    assert Invocation.objects.count() == 1


def test_the_key_is_not_the_token(restate, client):
    form = form_of(client)
    client.post(GREET, form)
    key = Invocation.objects.get().idempotency_key
    assert re.fullmatch(r"[0-9a-f]{32}", key)
    assert key not in form["idempotency_key"]


# ---------------------------------------------------------------- nobody else's


def test_a_token_is_good_for_its_session_alone(client):
    form = form_of(client)
    other = Client()
    other.get(GREET)
    for stranger in (other, Client()):
        assert stranger.post(GREET, form).status_code == 400
    assert Invocation.objects.count() == 0


def test_a_token_is_good_for_its_view_alone(client):
    form = form_of(client)
    assert client.post("/greet-too/", form).status_code == 400
    assert client.post(BY_CLASS, form).status_code == 200
    assert Invocation.objects.count() == 0


@pytest.mark.parametrize("changed", ["", ".", "0{0}", "a.{0}", "{0}="])
def test_a_token_that_was_changed_is_none(client, changed):
    form = form_of(client)
    form["idempotency_key"] = changed.format(form["idempotency_key"])
    assert client.post(GREET, form).status_code == 400
    assert client.post(GREET, {"name": "Mary"}).status_code == 400
    assert Invocation.objects.count() == 0


def test_a_name_with_dots_is_no_other_views_token(client):
    """A view ``a.b`` and a token ``c`` are not a view ``a`` and a token ``b.c``."""
    request = request_of()
    token = forms.new_token(request, "a.b")
    request.resolver_match = type("Match", (), {"view_name": "a"})
    assert forms.read_token(request, f"b.{token}") is None
    request.resolver_match.view_name = "a.b"
    assert forms.read_token(request, token)


def test_a_login_in_between_keeps_the_form(restate, client):
    form = form_of(client)
    client.force_login(get_user_model().objects.create_user("mary"))
    assert client.post(GREET, form).status_code == 302


def test_a_secret_key_in_rotation_changes_no_key(restate, client, settings):
    form = form_of(client)
    client.post(GREET, form)
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "new", [settings.SECRET_KEY]
    client.post(GREET, form)
    assert Invocation.objects.count() == 1


# ---------------------------------------------------------------- the form class and its view


def request_of(data=None):
    request = RequestFactory().get("/") if data is None else RequestFactory().post("/", data)
    request.session = {}
    return request


def test_a_form_whose_token_is_no_good_comes_back_with_a_new_one(restate, client):
    answer = client.post(BY_CLASS, {"name": "Mary", "idempotency_key": "old"})
    assert "Send it again." in answer.content.decode()
    assert client.post(BY_CLASS, {"name": "Mary", "idempotency_key": token_of(answer)}).status_code == 302
    assert Invocation.objects.count() == 1


def test_a_form_with_another_mistake_keeps_its_token(client):
    form = form_of(client, BY_CLASS, name="")
    assert token_of(client.post(BY_CLASS, form)) == form["idempotency_key"]


@pytest.mark.parametrize("atomic", [False, True])
def test_a_form_that_was_changed_after_it_was_sent_asks_first(restate, client, monkeypatch, atomic):
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", atomic)
    form = form_of(client, BY_CLASS)
    assert client.post(BY_CLASS, form).status_code == 302
    answer = client.post(BY_CLASS, {**form, "name": "Joe"})
    assert "with other content" in answer.content.decode()
    assert Invocation.objects.count() == 1
    if atomic:
        assert not Order.objects.filter(number="Joe").exists(), "what was written for it is undone"
        client.post(BY_CLASS, {"name": "Joe", "idempotency_key": token_of(answer)})
        assert Invocation.objects.count() == 2


def test_a_form_with_a_prefix_and_a_plain_dict_work():
    request = request_of()
    token = GreetingForm(request=request, prefix="a")["idempotency_key"].value()
    for data in ({"a-name": "Mary", "a-idempotency_key": token}, QueryDict(f"a-name=Mary&a-idempotency_key={token}")):
        form = GreetingForm(data, request=request, prefix="a")
        assert form.is_valid()
        assert form.idempotency_key == forms.read_token(request, token)
    bad = GreetingForm({"a-name": "Mary"}, request=request, prefix="a")
    assert not bad.is_valid()
    assert forms.read_token(request, bad["idempotency_key"].value())
    assert [error.code for error in bad.non_field_errors().as_data()] == ["idempotency_key"]


# ---------------------------------------------------------------- the tag


def test_the_tag_writes_an_input_for_a_view_and_its_script_once():
    request = request_of()
    text = "{% load restate_django %}{% idempotency_key 'shop:orders' %}{% idempotency_key %}"
    html = Template(text).render(RequestContext(request))
    assert html.count('<input type="hidden" name="idempotency_key"') == 2
    assert re.findall("<script[^>]*>", html) == ['<script src="/static/restate_django/form.js" defer>']
    one, other = re.findall(r'value="([^"]+)"', html)
    assert forms.read_token(request, one) is None
    assert forms.read_token(request, other)
    assert "<script" not in Template("{% load restate_django %}{% idempotency_key assets=False %}").render(
        RequestContext(request)
    )


def test_what_it_lacks_is_said():
    with pytest.raises(ImproperlyConfigured, match="needs the request"):
        Template("{% load restate_django %}{% idempotency_key %}").render(Context())
    with pytest.raises(ImproperlyConfigured, match=r"django\.contrib\.sessions"):
        forms.new_token(RequestFactory().get("/"))
    with pytest.raises(BadRequest, match="load the page anew"):
        forms.idempotency_key(request_of({}))


# ---------------------------------------------------------------- in a browser


@pytest.fixture
def site(page, settings):
    """A browser's page on a site of a project's own, under a policy that forbids everything inline."""
    settings.MIDDLEWARE = ["tests.admin.strict_csp.strict_csp", *settings.MIDDLEWARE]
    page.set_default_timeout(15_000)
    return page


@pytest.mark.browser
def test_a_double_click_makes_one_invocation(restate, site, live_server):
    site.goto(live_server.url + GREET)
    site.fill("[name=name]", "Mary")
    site.dblclick("text=Greet")
    comes_to(site, r"/invocations/[^/]+/$")
    assert Invocation.objects.count() == 1


@pytest.mark.browser
def test_the_back_button_and_a_second_click_make_one_invocation(restate, site, live_server):
    site.goto(live_server.url + GREET)
    token = site.input_value("[name=idempotency_key]")
    for _time in range(2):
        site.fill("[name=name]", "Mary")
        site.click("text=Greet")
        site.wait_for_url("**/invocations/*/")
        address = site.url
        site.reload()
        assert site.url == address
        site.go_back()
        site.wait_for_function("token => document.querySelector('[data-restate-key]').value === token", arg=token)
    assert Invocation.objects.count() == 1
    site.goto(live_server.url + GREET)
    assert site.input_value("[name=idempotency_key]") != token
    site.fill("[name=name]", "Mary")
    site.click("text=Greet")
    site.wait_for_url("**/invocations/*/")
    assert Invocation.objects.count() == 2, "who opens the form anew asks for another one"


@pytest.mark.browser
def test_a_post_that_is_loaded_anew_makes_one_invocation(restate, site, live_server, monkeypatch):
    from tests import own_site

    monkeypatch.setattr(own_site, "redirect", lambda name, pk: own_site.page(None, f"<p>{pk}</p>"))
    site.goto(live_server.url + GREET)
    site.fill("[name=name]", "Mary")
    site.click("text=Greet")
    site.wait_for_selector("p")
    first = site.inner_text("p")
    site.reload()
    assert site.inner_text("p") == first
    assert Invocation.objects.count() == 1
