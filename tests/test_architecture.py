"""What holds for the tree as a whole: its floors, what it can be imported without, and what is shipped."""

from __future__ import annotations

import email
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import restate_django
from tests.conftest import ROOT
from tests.require import require

PACKAGE = ROOT / "restate_django"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
CATALOGUES = [
    f"restate_django/locale/{language}/LC_MESSAGES/django.{kind}"
    for language in ("de", "zh_Hans")
    for kind in ("po", "mo")
]


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command at the root of the tree, without the settings that this suite runs with."""
    inherited = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    return subprocess.run(
        command, cwd=ROOT, env=inherited | environment, capture_output=True, text=True, check=False, timeout=120
    )


def python(code: str, **environment: str) -> str:
    """Run code in a new interpreter that turns every warning into an error, and return what it printed."""
    done = run(sys.executable, "-W", "error", "-c", code, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    """The files of the repository, as paths from its root."""
    # A clone may belong to another user than the one who tests it; git refuses that without this.
    done = run("git", "-c", "safe.directory=*", "ls-files", "-z")
    require(done.returncode == 0, "this is no git repository (a source distribution has none)")
    # One that was removed and not yet committed is no file of the repository any more.
    return [name for name in done.stdout.split("\0") if name and (ROOT / name).exists()]


# ---------------------------------------------------------------- the floors


def test_imports_go_down_never_up():
    done = run(sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()")
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", 0 broken" in done.stdout


def test_every_module_has_a_floor_and_every_floor_its_modules():
    (contract,) = [item for item in PYPROJECT["tool"]["importlinter"]["contracts"] if item["type"] == "layers"]
    assert contract["exhaustive"] is True
    named = [name for layer in contract["layers"] for name in re.findall(r"\w+", layer)]
    assert len(named) == len(set(named))
    optional = {name for layer in contract["layers"] for name in re.findall(r"\((\w+)\)", layer)}
    there = {
        path.stem if path.is_file() else path.name
        for path in PACKAGE.iterdir()
        if (path.suffix == ".py" and path.stem != "__init__") or next(path.glob("**/*.py"), None)
    }
    assert there - set(named) == set(), "add them to a floor of the contract in pyproject.toml"
    assert set(named) - optional - there == set(), "the contract in pyproject.toml names modules that are gone"


# ---------------------------------------------------------------- what it can be imported without


@pytest.mark.parametrize(
    "module", ["restate_django", "restate_django.client", "restate_django.handlers", "restate_django.tasks"]
)
def test_it_can_be_imported_without_settings_and_before_the_registry_is_ready(module):
    """A project's ``celery.py`` does, and so does a script that only wants the client."""
    code = (
        f"import {module}; from django.apps import apps; from django.conf import settings; "
        "assert not apps.ready; assert not settings.configured; print('fine')"
    )
    assert python(code) == "fine\n"


def test_the_client_works_in_a_script_without_any_settings():
    code = (
        "from restate_django.client import AdminClient, IngressClient\n"
        "with IngressClient('http://localhost:1'), AdminClient('http://localhost:1'): print('fine')"
    )
    assert python(code) == "fine\n"


def test_every_public_name_is_there():
    assert set(restate_django.__all__) <= set(dir(restate_django))
    for name in restate_django.__all__:
        assert getattr(restate_django, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'sned'"):
        _ = restate_django.sned


def test_it_starts_and_checks_itself_without_a_warning_and_without_a_database(tmp_path):
    nowhere = f"sqlite:///{tmp_path}/no/such/folder/db.sqlite3"
    environment = {"DJANGO_SETTINGS_MODULE": "tests.settings", "DATABASE_URL": nowhere, "RESTATE_DJANGO_TEST_RUN": ""}
    start = "import django; django.setup(); from django.core.management import call_command; "
    assert "no issues" in python(start + "call_command('check', tags=['restate'])", **environment)
    migrate = run(sys.executable, "-c", start + "call_command('migrate')", **environment)
    assert "unable to open database file" in migrate.stderr


# ---------------------------------------------------------------- what is shipped


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    done = run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_says_what_it_is(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = email.message_from_bytes(archive.read(name))
        assert f"{Path(name).parent}/licenses/restate_django/LICENSE" in archive.namelist()
    assert metadata["Name"] == "restate-django"
    assert metadata["Version"] == restate_django.__version__
    assert metadata["License-Expression"] == "MIT"
    assert metadata.get_all("License-File") == ["restate_django/LICENSE"]
    assert metadata["Requires-Python"] == ">=3.11"
    classifiers = metadata.get_all("Classifier")
    for line in ("Framework :: Django :: 5.2", "Framework :: Django :: 6.0", "Framework :: Django :: 6.1"):
        assert line in classifiers
    assert "Typing :: Typed" in classifiers
    # PEP 639: an expression and a classifier of the licence exclude each other.
    assert not [line for line in classifiers if line.startswith("License ::")]


def test_the_wheel_holds_the_package_and_nothing_else(wheel, tracked):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert "restate_django/py.typed" in names
    assert "restate_django/LICENSE" in names
    assert {name for name in tracked if name.startswith("restate_django/")} <= names
    assert set(CATALOGUES) <= names
    assert {name.split("/")[0] for name in names} == {"restate_django"}


def test_the_source_distribution_holds_the_catalogues_too(tmp_path):
    done = run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(built) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert set(CATALOGUES) <= names


def test_it_needs_three_packages_to_run():
    assert sorted(re.match(r"[\w-]+", line)[0] for line in PROJECT["dependencies"]) == ["celery", "django", "requests"]


def test_the_top_of_the_tree_is_as_small_as_it_was_meant_to_be(tracked):
    visible = {name.split("/")[0] for name in tracked if not name.startswith(".")}
    assert visible <= {"README.md", "example_project", "pyproject.toml", "restate_django", "tests"}


def test_no_file_names_a_path_of_somebodys_machine(tracked):
    somebodys = re.compile(rb"(?<![\w.~)}-])/(?:work|root|home|Users|tmp/venv)/|\b[A-Z]:\\Users", re.ASCII)
    found = [
        f"{name}:{number}: {line.decode(errors='replace').strip()[:100]}"
        for name in tracked
        for number, line in enumerate((ROOT / name).read_bytes().splitlines(), 1)
        if somebodys.search(line)
    ]
    assert not found, "\n".join(found)
