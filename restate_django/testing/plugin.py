"""The pytest plugin: the fixtures ``fake_restate`` and ``restate_server``, in every project that has the package.

pytest loads it by its entry point, so at import it needs pytest alone: a project that uses none of it pays for nothing,
and need not have Django's settings. What a fixture needs is imported when a test asks for it.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from restate_django.testing.fake import FakeRestate
    from restate_django.testing.running import Running


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare what ``restate_server`` needs to know."""
    parser.addini(
        "restate_handlers",
        "Your handlers for the fixture restate_server: module:name of restate.app([...]), several with blanks between.",
        type="args",
        default=[],
    )
    parser.addini("restate_version", "The version of the Restate server that restate_server starts.", default="")
    parser.addini(
        "restate_required",
        "Without a Restate server, tests that use restate_server fail; else they are skipped.",
        type="bool",
        default=False,
    )


@pytest.fixture
def fake_restate(request: pytest.FixtureRequest) -> Iterator[FakeRestate]:
    """A Restate server that lives in memory: records what your code sends, and answers as you say."""
    from restate_django.testing.fake import FakeRestate

    fake = FakeRestate()
    if request.config.pluginmanager.hasplugin("django"):
        # Through the same hands as everything else that a test overrides, so that it is put back in order.
        settings = request.getfixturevalue("settings")

        def override(value: dict[str, Any]) -> contextlib.AbstractContextManager[None]:
            settings.RESTATE = value
            return contextlib.nullcontext()

        fake.override = override
    with fake:
        yield fake


@pytest.fixture(scope="session")
def _running_restate(request: pytest.FixtureRequest) -> Iterator[Running]:
    """One server with your handlers, for all tests of this process."""
    from restate_django.testing.binary import NoServerError
    from restate_django.testing.process import StartError
    from restate_django.testing.running import running

    config = request.config
    # The handlers run in a process of their own, which finds modules as pytest does.
    paths = [str(config.rootpath), *map(str, config.getini("pythonpath")), os.environ.get("PYTHONPATH", "")]
    with contextlib.ExitStack() as stack:
        try:
            found = stack.enter_context(
                running(
                    config.getini("restate_handlers"),
                    version=config.getini("restate_version") or None,
                    cwd=config.rootpath,
                    handler_env={"PYTHONPATH": os.pathsep.join(filter(None, paths))},
                )
            )
        except NoServerError as error:
            reason = f"restate_server needs a Restate server: {error}"
            if config.getini("restate_required"):
                pytest.fail(reason, pytrace=False)
            pytest.skip(reason)
        except StartError as error:
            pytest.fail(f"restate_server: {error}", pytrace=False)
        yield found


@pytest.fixture
def restate_server(_running_restate: Running, request: pytest.FixtureRequest) -> Iterator[Running]:
    """A real Restate server with your handlers (``restate_handlers`` in pytest's settings); ``RESTATE`` leads to it."""
    from django.conf import settings as django_settings
    from django.test import override_settings

    # As with the fake, no worker of Celery's is needed.
    own = getattr(django_settings, "RESTATE", None)
    restate = _running_restate.settings(own, DELIVERY="on_commit", POLL_MIN_INTERVAL=0.1)
    if request.config.pluginmanager.hasplugin("django"):
        request.getfixturevalue("settings").RESTATE = restate
        yield _running_restate
    else:
        with override_settings(RESTATE=restate):
            yield _running_restate
