"""The pytest plugin in new small projects, run as their owners would: nothing of this suite is there."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from restate_django.testing.binary import NoServerError, find_binary
from tests.require import require

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.once

SETTINGS = """
    SECRET_KEY = "x"
    USE_TZ = True
    INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "restate_django"]
    DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
    DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
    RESTATE = {"default": {"INGRESS_URL": "https://example.com", "ADMIN_URL": None, "DELIVERY": "celery", "TOKEN": "t"}}
"""
SERVICES = """
    import restate

    greeter = restate.Service("Greeter")


    @greeter.handler()
    async def greet(ctx: restate.Context, request: dict) -> str:
        return f"Hello, {request['name']}!"


    app = restate.app([greeter])
"""
INI = """
    [pytest]
    DJANGO_SETTINGS_MODULE = mysettings
    pythonpath = .
    filterwarnings = error
"""


class Project:
    """A folder with a project of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, **files: str) -> None:
        """Write files; ``name`` is ``name.py``, ``pytest_ini`` is pytest's."""
        for name, text in files.items():
            path = self.folder / ("pytest.ini" if name == "pytest_ini" else f"{name}.py")
            path.write_text(textwrap.dedent(text), encoding="utf-8")

    def pytest(self, *args: str, **environment: str) -> str:
        """Run pytest in it and return what it said, its exit code as the last line."""
        ours = ("RESTATE_DJANGO_TEST_RUN", "DJANGO_SETTINGS_MODULE", "PYTHONPATH")
        inherited = {
            name: value for name, value in os.environ.items() if name not in ours and not name.startswith("PYTEST_")
        }
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-ra", "-p", "no:cacheprovider", "-p", "no:xdist", *args],
            cwd=self.folder,
            env=inherited | environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return f"{done.stdout}{done.stderr}\nexit code {done.returncode}"


@pytest.fixture
def project(tmp_path) -> Project:
    """An empty folder."""
    return Project(tmp_path)


def test_loading_the_plugin_loads_nothing_else():
    """It is loaded in every project in whose environment the package is."""
    code = (
        "import sys, pytest; before = set(sys.modules); import restate_django.testing.plugin; "
        "print(sorted(name for name in set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    ours = ["restate_django", "restate_django.lazy", "restate_django.testing", "restate_django.testing.plugin"]
    assert done.stdout.strip() == str(ours)


def test_a_project_without_django_pays_for_nothing(project):
    project.write(
        pytest_ini="[pytest]\nfilterwarnings = error\n",
        test_it="""
            import sys


            def test_nothing_is_loaded(request):
                assert request.config.pluginmanager.hasplugin("restate_django")
                assert not {"django", "celery", "requests", "restate_django.models"} & set(sys.modules)
        """,
    )
    said = project.pytest("-p", "no:django")
    assert "1 passed" in said, said


def test_a_project_tests_its_code_with_the_fixtures_alone(project):
    try:
        find_binary()
    except NoServerError as error:
        require(condition=False, reason=f"there is no Restate server: {error}")
    project.write(
        mysettings=SETTINGS,
        services=SERVICES,
        pytest_ini=INI + "    restate_handlers = services:app\n",
        test_fake="""
            import pytest
            from django.conf import settings as django_settings
            from restate_django import call, send
            from restate_django.models import Invocation


            @pytest.mark.django_db
            def test_a_view_sends(fake_restate, django_capture_on_commit_callbacks):
                with django_capture_on_commit_callbacks(execute=True):
                    row = send("Greeter", "greet", {"name": "Mary"})
                fake_restate.assert_sent("Greeter", "greet", {"name": "Mary"}, key=None)
                fake_restate.finish(row, "Hello, Mary!")
                assert Invocation.objects.get().output_value == "Hello, Mary!"


            @pytest.mark.django_db(transaction=True)
            def test_settings_are_put_back(fake_restate, settings):
                settings.RESTATE = {"default": {"INGRESS_URL": "https://example.org"}}
                fake_restate.on("Greeter").returns("Hello")
                assert call("Greeter", "greet") == "Hello"


            def test_they_are(settings):
                assert settings.RESTATE["default"]["INGRESS_URL"] == "https://example.com"
                assert settings.RESTATE["default"]["DELIVERY"] == "celery"


            @pytest.mark.django_db(transaction=True)
            def test_a_difference(fake_restate):
                send("Greeter", "greet", {"name": "Mary"})
                fake_restate.assert_sent("Greeter", "greet", {"name": "Joe"})
        """,
        test_real="""
            import pytest
            from restate_django import call, send


            @pytest.mark.django_db(transaction=True)
            def test_greeting(restate_server):
                assert call("Greeter", "greet", {"name": "Mary"}) == "Hello, Mary!"
                assert send("Greeter", "greet", {"name": "Joe"}).attach(timeout=10) == "Hello, Joe!"


            @pytest.mark.django_db(transaction=True)
            def test_again(restate_server, settings):
                assert settings.RESTATE["default"]["ADMIN_URL"] == restate_server.admin_url
                assert restate_server.handlers[0].running
        """,
    )
    said = project.pytest()
    assert "1 failed, 5 passed" in said, said
    assert "payload: wanted {'name': 'Joe'}, sent {'name': 'Mary'}" in said


@pytest.mark.parametrize(("required", "wanted"), [("false", "1 skipped"), ("true", "1 error")])
def test_without_a_server_the_reason_is_said(project, required, wanted):
    project.write(
        mysettings=SETTINGS,
        pytest_ini=f"{INI}    restate_required = {required}\n",
        test_it="def test_one(restate_server):\n    raise AssertionError\n",
    )
    said = project.pytest(RESTATE_SERVER="no/such/program")
    assert wanted in said, said
    assert "restate_server needs a Restate server: RESTATE_SERVER is 'no/such/program'" in said


def test_handlers_that_do_not_start_are_an_error_with_their_log(project):
    try:
        find_binary()
    except NoServerError as error:
        require(condition=False, reason=f"there is no Restate server: {error}")
    project.write(
        mysettings=SETTINGS,
        services="raise RuntimeError('a mistake in the handlers')",
        pytest_ini=f"{INI}    restate_handlers = services:app\n",
        test_it="def test_one(restate_server):\n    raise AssertionError\n",
    )
    said = project.pytest()
    assert "1 error" in said, said
    assert "a mistake in the handlers" in said


def test_the_fake_goes_without_pytest_django(project):
    project.write(
        mysettings=SETTINGS,
        conftest="""
            import django, os

            os.environ["DJANGO_SETTINGS_MODULE"] = "mysettings"
            django.setup()
        """,
        pytest_ini="[pytest]\nfilterwarnings = error\npythonpath = .\n",
        test_it="""
            from django.conf import settings
            from restate_django.client import IngressClient


            def test_a_client(fake_restate):
                assert settings.RESTATE["default"]["DELIVERY"] == "on_commit"
                with IngressClient("http://localhost:8080") as ingress:
                    assert ingress.send("Greeter", "greet", {"name": "Mary"}).invocation_id
                fake_restate.assert_sent("Greeter", "greet", {"name": "Mary"})


            def test_it_is_put_back():
                assert settings.RESTATE["default"]["DELIVERY"] == "celery"
        """,
    )
    said = project.pytest("-p", "no:django")
    assert "2 passed" in said, said
