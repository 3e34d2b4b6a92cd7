"""What a project loads when it starts: only what it needs by then."""

from __future__ import annotations

import subprocess
import sys

import pytest

SETUP = """
import sys
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=[
        "django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions",
        "django.contrib.messages", "restate_django",
    ],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    USE_TZ=True,
)
django.setup()
from django.contrib import admin
from restate_django.models import Invocation
assert admin.site.is_registered(Invocation)
print(*sorted(sys.modules))
"""


@pytest.fixture(scope="module")
def loaded():
    ran = subprocess.run([sys.executable, "-c", SETUP], capture_output=True, text=True, check=True)
    return set(ran.stdout.split())


@pytest.mark.parametrize(
    "name",
    [
        "restate_django.client.ingress",
        "restate_django.client.admin_api",
        "restate_django.dispatch",
        "restate_django.delivery",
        "restate_django.operations",
        "restate_django.polling",
        "restate_django.admin.overview",
        "restate_django.admin.operate",
        "restate_django.testing.fake",
        "celery",
        "httpx",
        "pycurl",
        "jsonschema",
        "prometheus_client",
        "opentelemetry",
    ],
)
def test_it_waits_until_it_is_needed(loaded, name):
    assert "restate_django.models" in loaded
    assert name not in loaded


def test_a_lazy_package_has_its_names_and_no_others():
    import restate_django.client

    assert {"AdminClient", "Target"} <= set(dir(restate_django.client))
    for package in (restate_django, restate_django.client):
        assert all(hasattr(package, name) for name in package.__all__)
        assert set(package.__all__) <= set(dir(package))
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            _ = package.nothing
