"""The RESTATE setting: what it means when it is left out, what is refused, and in which words."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, fields
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from django.utils import connection as django_connection

from restate_django import conf
from restate_django.attempts import least_lease
from restate_django.client import MAX_DELAY
from restate_django.conf import ConnectionDoesNotExist, ConnectionSettings, aliases, all_settings, get_settings
from restate_django.exceptions import RestateError

SECRET = "s3cr3t-t0ken"


def read(entry: object) -> ConnectionSettings:
    with override_settings(RESTATE={"default": entry}):
        return get_settings()


def refusal(entry: object) -> str:
    with override_settings(RESTATE={"default": entry}), pytest.raises(ImproperlyConfigured) as caught:
        get_settings()
    return str(caught.value)


# ---------------------------------------------------------------- what is left out


@pytest.mark.parametrize("setting", [{}, {"default": {}}])
def test_without_keys_there_is_a_local_server_on_its_default_ports(setting):
    with override_settings(RESTATE=setting):
        assert aliases() == ("default",)
        settings = get_settings()
    assert settings.ingress_url == "http://localhost:8080"
    assert settings.admin_url == "http://localhost:9070"
    assert settings.ui_url == "http://localhost:9070/ui"
    assert settings.token is None
    assert settings.headers == {}
    assert (settings.timeout, settings.call_timeout) == (10.0, 60.0)
    assert (settings.path_style, settings.delivery, settings.databases) == ("auto", "on_commit", ("default",))
    assert settings.idempotency_retention == timedelta(hours=24)
    assert (settings.lease, settings.registration_grace) == (timedelta(seconds=60), timedelta(minutes=5))
    assert (settings.poll_min_interval, settings.poll_max_interval) == (timedelta(seconds=1), timedelta(minutes=5))
    assert (settings.retention, settings.max_delay) == (timedelta(days=30), timedelta(days=3650))
    assert (settings.max_payload_size, settings.max_output_size, settings.concurrency) == (10 * 2**20, 2**20, 8)
    assert settings.bulk_concurrency == 64
    assert (settings.trust_env, settings.ca_bundle) == (False, None)


def test_the_setting_itself_can_be_missing():
    with override_settings():
        del django_settings.RESTATE
        conf.all_settings.cache_clear()  # deleting sends no signal
        assert get_settings().ingress_url == "http://localhost:8080"
    conf.all_settings.cache_clear()


def test_default_must_be_there_when_another_alias_is():
    with override_settings(RESTATE={"cloud": {}}), pytest.raises(ImproperlyConfigured, match='define a "default"'):
        get_settings("cloud")


# ---------------------------------------------------------------- what is there


def test_every_key_reaches_its_field():
    written = {
        "INGRESS_URL": "https://example.com/restate/",
        "ADMIN_URL": "https://example.com/admin",
        "TOKEN": SECRET,
        "HEADERS": {"X-Gateway": SECRET},
        "TIMEOUT": 3,
        "CALL_TIMEOUT": timedelta(minutes=2),
        "CONNECT_TIMEOUT": 2,
        "ON_COMMIT_TIMEOUT": 4,
        "PATH_STYLE": "legacy",
        "DELIVERY": "relay",
        "DATABASES": ["default", "other"],
        "IDEMPOTENCY_RETENTION": 0,
        "UI_URL": "https://ui.example.com/",
        "SITE_URL": "https://shop.example.com/",
        "REPORT_URL": "https://shop.example.com/restate/",
        "LEASE": 90,
        "POLL_MIN_INTERVAL": 0.5,
        "POLL_MAX_INTERVAL": timedelta(seconds=30),
        "REGISTRATION_GRACE": 0,
        "RETENTION": None,
        "ALERT_AFTER": timedelta(minutes=2),
        "MAX_PAYLOAD_SIZE": 1,
        "VALIDATE_PAYLOADS": True,
        "MAX_OUTPUT_SIZE": 2,
        "MAX_DELAY": timedelta(days=1),
        "CONCURRENCY": 3,
        "BULK_CONCURRENCY": 5,
        "TRUST_ENV": True,
        "CA_BUNDLE": Path("/etc/ssl/ca.pem"),
    }
    assert {item.name.upper() for item in fields(ConnectionSettings)} == {*written, "ALIAS"}
    settings = read(written)
    expected = {
        "alias": "default",
        "ingress_url": "https://example.com/restate",
        "admin_url": "https://example.com/admin",
        "token": SECRET,
        "headers": {"X-Gateway": SECRET},
        "timeout": 3.0,
        "call_timeout": 120.0,
        "path_style": "legacy",
        "delivery": "relay",
        "databases": ("default", "other"),
        "idempotency_retention": timedelta(0),
        "ui_url": "https://ui.example.com",
        "site_url": "https://shop.example.com",
        "report_url": "https://shop.example.com/restate",
        "lease": timedelta(seconds=90),
        "poll_min_interval": timedelta(milliseconds=500),
        "poll_max_interval": timedelta(seconds=30),
        "registration_grace": timedelta(0),
        "retention": None,
        "alert_after": timedelta(minutes=2),
        "max_payload_size": 1,
        "validate_payloads": True,
        "max_output_size": 2,
        "max_delay": timedelta(days=1),
        "concurrency": 3,
        "bulk_concurrency": 5,
        "trust_env": True,
        "ca_bundle": "/etc/ssl/ca.pem",
    }
    assert {name: getattr(settings, name) for name in expected} == expected
    assert isinstance(settings.timeout, float)


def test_every_key_says_what_it_means():
    for item in fields(ConnectionSettings):
        assert item.metadata["help"].endswith("."), item.name


def test_settings_can_be_hashed_and_not_changed():
    settings = read({"HEADERS": {"X-Gateway": "a"}})
    assert hash(settings) == hash(read({"HEADERS": {"X-Gateway": "a"}}))
    with pytest.raises(FrozenInstanceError):
        settings.timeout = 1.0
    with pytest.raises(TypeError):
        settings.headers["X-Gateway"] = "b"


def test_a_secret_stands_in_no_repr():
    settings = read({"TOKEN": SECRET, "HEADERS": {"X-Gateway": SECRET}})
    assert SECRET not in repr(settings)
    assert SECRET not in str(settings)


def test_an_empty_token_is_none():
    assert read({"TOKEN": ""}).token is None


def test_aliases_keep_their_order_and_their_own_settings():
    with override_settings(RESTATE={"cloud": {"TIMEOUT": 2}, "default": {}}):
        assert aliases() == ("cloud", "default")
        assert get_settings("cloud").alias == "cloud"
        assert (get_settings("cloud").timeout, get_settings().timeout) == (2.0, 10.0)
        assert list(all_settings()) == ["cloud", "default"]


def test_the_setting_is_read_once():
    assert get_settings() is get_settings()


def test_a_changed_setting_is_read_anew():
    with override_settings(RESTATE={"default": {"TIMEOUT": 1}}):
        assert get_settings().timeout == 1.0
        with override_settings(RESTATE={"default": {"TIMEOUT": 2}}):
            assert get_settings().timeout == 2.0
        assert get_settings().timeout == 1.0


def test_the_projects_own_dict_is_left_alone():
    written = {"default": {"HEADERS": {"X-A": "b"}, "DATABASES": ["default"]}}
    before = copy.deepcopy(written)
    with override_settings(RESTATE=written):
        get_settings()
    assert written == before


# ---------------------------------------------------------------- an alias that is not there


@pytest.mark.parametrize("alias", ["clowd", "", None, ["default"]])
def test_an_unknown_alias_is_refused_and_the_known_ones_named(alias):
    with override_settings(RESTATE={"default": {}, "cloud": {}}), pytest.raises(ConnectionDoesNotExist) as caught:
        get_settings(alias)
    assert str(caught.value) == f"RESTATE has no connection {alias!r}. It has: 'default', 'cloud'."


def test_an_unknown_alias_is_an_error_of_configuration_and_no_refusal_of_the_server():
    error = ConnectionDoesNotExist("none")
    assert isinstance(error, ImproperlyConfigured)
    assert isinstance(error, django_connection.ConnectionDoesNotExist)
    assert not isinstance(error, RestateError)
    assert str(pickle.loads(pickle.dumps(error))) == "none"


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (None, "RESTATE: must be a dict of connections, not NoneType."),
        (["default"], "RESTATE: must be a dict of connections, not list."),
        ({"default": None}, 'RESTATE["default"]: must be a dict, not NoneType.'),
        ({"default": "http://localhost:8080"}, 'RESTATE["default"]: must be a dict, not str.'),
        ({"default": {}, "": {}}, "RESTATE['']: a connection's name must be a string of 1 to 64 printable characters"),
        ({"default": {}, 5: {}}, "RESTATE[5]: a connection's name must be"),
        ({"default": {}, " x": {}}, "RESTATE[' x']: a connection's name must be"),
        ({"default": {}, "a\x00": {}}, "RESTATE['a\\x00']: a connection's name must be"),
        ({"default": {}, "x" * 65: {}}, "RESTATE['xxx"),
        ({"default": {}, "Default": {}}, 'RESTATE["Default"]: differs from "default" in case alone.'),
    ],
)
def test_what_is_no_dict_of_connections_is_refused(setting, message):
    with override_settings(RESTATE=setting), pytest.raises(ImproperlyConfigured) as caught:
        all_settings()
    assert str(caught.value).startswith(message)


def test_an_alias_of_64_characters_passes():
    with override_settings(RESTATE={"default": {}, "x" * 64: {}}):
        assert aliases() == ("default", "x" * 64)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("INGRES_URL", 'RESTATE["default"]["INGRES_URL"]: unknown key. Did you mean INGRESS_URL?'),
        ("ingress_url", 'RESTATE["default"]["ingress_url"]: unknown key. Did you mean INGRESS_URL?'),
        ("LEASES", 'RESTATE["default"]["LEASES"]: unknown key. Did you mean LEASE?'),
        ("ALIAS", 'RESTATE["default"]["ALIAS"]: unknown key.'),
        (5, 'RESTATE["default"][5]: unknown key. The keys are INGRESS_URL, ADMIN_URL,'),
    ],
)
def test_an_unknown_key_is_refused_and_the_likely_one_named(key, message):
    assert refusal({key: 1}).startswith(message)


NOT_DURATIONS = ["10", None, True, [], float("nan")]
NOT_POSITIVE = [0, -1, timedelta(seconds=-1), float("-inf")]
FAR_TOO_LONG = [float("inf"), 10**400, timedelta.max]


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("INGRESS_URL", [None, 5, b"http://h", "", "localhost:8080", "ftp://h", "http://", "http:///x", "http://:80"]),
        ("INGRESS_URL", ["http://h:0", "http://h:99999", "http://h:x", "http://[::1", "http://h?a=b", "http://h/#f"]),
        ("INGRESS_URL", ["http://h h", " http://h", "http://h\n", "http://h\\x", "http://h\x00", "//h", "http://h?"]),
        ("ADMIN_URL", [5, "", "unix:/run/restate.sock", False]),
        ("UI_URL", [5, "", "javascript:alert(1)"]),
        ("TOKEN", [5, b"x", "a b", "Bearer x", "a\nb", "é", "\x00"]),
        ("HEADERS", [None, [("X-A", "b")], {"X A": "b"}, {"": "b"}, {5: "b"}, {"X-A": 5}, {"X-A": None}, {"X-Ä": "b"}]),
        ("HEADERS", [{"X-A": "b\r\nX-B: c"}, {"X-A": "\x00"}, {"X-A": "é"}, {"X-A": "b", "x-a": "c"}, {"X-A:": "b"}]),
        ("HEADERS", [{"Content-Type": "b"}, {"idempotency-key": "b"}, {"X-Restate-Id": "b"}, {"X-A": " b"}]),
        ("HEADERS", [{"Connection": "close"}, {"Transfer-Encoding": "chunked"}, {"Content-Length": "5"}]),
        ("TIMEOUT", [*NOT_DURATIONS, *NOT_POSITIVE, *FAR_TOO_LONG, 86401]),
        ("CALL_TIMEOUT", [*NOT_DURATIONS, *NOT_POSITIVE, *FAR_TOO_LONG]),
        ("PATH_STYLE", [None, "", "Auto", "new", True]),
        ("DELIVERY", [None, "", "oncommit", ["relay"]]),
        ("DATABASES", [None, "default", [], [""], [None], ["default", "default"], {"default"}]),
        ("IDEMPOTENCY_RETENTION", [*NOT_DURATIONS, -1, timedelta(days=-1), *FAR_TOO_LONG]),
        ("LEASE", [*NOT_DURATIONS, *NOT_POSITIVE, *FAR_TOO_LONG, 0.5, 14.9]),
        ("POLL_MIN_INTERVAL", [*NOT_DURATIONS, *NOT_POSITIVE, *FAR_TOO_LONG, 0.01]),
        ("POLL_MAX_INTERVAL", [*NOT_DURATIONS, *NOT_POSITIVE, *FAR_TOO_LONG]),
        ("REGISTRATION_GRACE", [*NOT_DURATIONS, -1, *FAR_TOO_LONG]),
        ("RETENTION", ["30", True, -1, *FAR_TOO_LONG]),
        ("ALERT_AFTER", [*NOT_DURATIONS, *NOT_POSITIVE, *FAR_TOO_LONG, 9.9]),
        ("MAX_PAYLOAD_SIZE", [None, 0, -1, 1.5, True, "10", 2**30 + 1]),
        ("MAX_OUTPUT_SIZE", [None, 0, 1.5, True]),
        ("MAX_DELAY", [*NOT_DURATIONS, -1, *FAR_TOO_LONG, timedelta(days=3651)]),
        ("CONCURRENCY", [None, 0, -1, 257, 1.5, True]),
        ("BULK_CONCURRENCY", [None, 0, -1, 257, 1.5, True]),
        ("TRUST_ENV", [None, 0, 1, "False", "no"]),
        ("CA_BUNDLE", ["", 5, b"/ca.pem", False]),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_the_keys_name(key, values):
    for value in values:
        message = refusal({key: value})
        assert message.startswith(f'RESTATE["default"]["{key}"]: '), value
        assert len(message) < 250, value


@pytest.mark.parametrize(
    ("entry", "least", "given"),
    [
        ({"TIMEOUT": 2, "LEASE": 2}, "3 seconds", "2 seconds"),
        ({"TIMEOUT": 2, "LEASE": timedelta(seconds=2.9)}, "3 seconds", "2.9 seconds"),
        ({"TIMEOUT": 51}, "61 seconds", "60 seconds"),
        ({"LEASE": 14}, "15 seconds", "14 seconds"),
    ],
)
def test_a_lease_with_which_no_row_would_be_sent_is_refused(entry, least, given):
    """Delivery sends nothing that its lease may not outlast, and no system check runs in a worker."""
    timeout = entry.get("TIMEOUT", 10)
    assert refusal(entry) == (
        f'RESTATE["default"]["LEASE"]: must be at least {least} where TIMEOUT is {timeout}, not {given}.'
    )


@pytest.mark.parametrize("entry", [{"TIMEOUT": 1, "LEASE": 3}, {"TIMEOUT": 50}, {"TIMEOUT": 86400, "LEASE": 259200}])
def test_a_lease_that_leaves_time_to_send_passes(entry):
    settings = read(entry)
    assert settings.timeout < least_lease(settings) < settings.lease.total_seconds()


def test_no_delay_passes_here_that_the_client_refuses_at_each_attempt():
    assert read({"MAX_DELAY": MAX_DELAY}).max_delay == MAX_DELAY
    assert refusal({"MAX_DELAY": timedelta(days=3650, microseconds=1)}) == (
        'RESTATE["default"]["MAX_DELAY"]: must be between 0 seconds and 3650 days, '
        "not datetime.timedelta(days=3650, microseconds=1)."
    )


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8080",
        "https://restate.example.com",
        "http://[::1]:8080",
        "http://10.0.0.1:8080/a/b",
        "https://201hy10cd3h6426jy80tb32n6en.env.us.restate.cloud:8080",
        "HTTP://LOCALHOST:8080",
    ],
)
def test_urls_that_pass(url):
    assert read({"INGRESS_URL": url}).ingress_url == url


def test_a_path_prefix_is_kept_without_its_last_slash():
    assert read({"INGRESS_URL": "http://h/restate/"}).ingress_url == "http://h/restate"


@pytest.mark.parametrize(
    "entry",
    [
        {"INGRESS_URL": f"http://user:{SECRET}@h"},
        {"INGRESS_URL": f"http://user:{SECRET}/more@h"},
        {"INGRESS_URL": f"http://user:{SECRET}℀@h"},
        {"ADMIN_URL": f"http://{SECRET}@h"},
        {"TOKEN": f"{SECRET}\n"},
        {"TOKEN": SECRET.encode()},
        {"HEADERS": {"X-Gateway": f"{SECRET}\n"}},
        {"HEADERS": {"X-Gateway": SECRET.encode()}},
        {"HEADERS": {"Cookie": SECRET, "cookie": SECRET}},
        {"HEADERS": [("X-Gateway", SECRET)]},
        {"TOKEN": SECRET, "HEADERS": {"Authorization": SECRET}},
    ],
)
def test_a_refusal_never_shows_a_secret(entry):
    with override_settings(RESTATE={"default": entry}), pytest.raises(ImproperlyConfigured) as caught:
        get_settings()
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_proxy_may_ask_for_an_authorization_of_its_own():
    assert read({"HEADERS": {"Authorization": "Basic abc", "Cookie": "a=b"}}).headers["Authorization"] == "Basic abc"


def test_the_longest_poll_interval_is_not_shorter_than_the_shortest():
    assert "POLL_MIN_INTERVAL" in refusal({"POLL_MIN_INTERVAL": 10, "POLL_MAX_INTERVAL": 5})
    assert "POLL_MAX_INTERVAL" in refusal({"POLL_MIN_INTERVAL": timedelta(hours=1)})


def test_a_bad_connection_stops_the_good_ones_too():
    with (
        override_settings(RESTATE={"default": {}, "cloud": {"TIMEOUT": 0}}),
        pytest.raises(ImproperlyConfigured, match=r'RESTATE\["cloud"\]\["TIMEOUT"\]'),
    ):
        get_settings("default")


# ---------------------------------------------------------------- Restate's own UI


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        ({}, "http://localhost:9070/ui"),
        ({"ADMIN_URL": "https://h/admin/"}, "https://h/admin/ui"),
        ({"ADMIN_URL": None}, None),
        ({"ADMIN_URL": None, "UI_URL": "https://ui.h"}, "https://ui.h"),
        ({"UI_URL": None}, "http://localhost:9070/ui"),
    ],
)
def test_the_ui_is_beside_the_admin_api_unless_it_is_named(entry, url):
    settings = read(entry)
    assert settings.ui_url == url
    expected = f"{url}/invocations/inv_1gdJBtdVEcM9" if url else None
    assert conf.invocation_ui_url(settings, "inv_1gdJBtdVEcM9") == expected


def test_there_is_no_page_without_an_id_and_no_way_out_of_the_path():
    assert conf.invocation_ui_url(read({}), "") is None
    assert conf.invocation_ui_url(read({}), "../?x#y") == "http://localhost:9070/ui/invocations/..%2F%3Fx%23y"
