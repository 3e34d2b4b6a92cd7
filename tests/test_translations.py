"""The catalogues of translations are whole: nothing is missing, nothing lost its placeholders, nothing is stale."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter

import pytest
from django.core.management import call_command
from django.utils import translation
from django.utils.translation import gettext, to_locale

from restate_django import deployments
from restate_django.client.targets import url_fault
from tests.catalogues import PACKAGE, UPDATE, compiled, in_python, in_template, languages, path_of, wanted, written
from tests.require import require

HELP = f"Run `{UPDATE}` (it needs GNU gettext), translate what it names in the .po files, and run it once more."
LANGUAGES = languages()
PLACEHOLDER = re.compile(r"%\(\w+\)[sd]|%%|\{\w*\}|</?\w+>")


def told(messages):
    """Messages in a failure's report, and what to do about them."""
    return "\n".join([*(f"  {text!r}" for text in sorted(map(str, messages))), HELP])


def test_there_is_a_german_and_a_chinese_catalogue():
    assert {"de", "zh_Hans"} <= set(LANGUAGES)
    for name in ("de", "zh-hans"):
        assert to_locale(name) in LANGUAGES
        with translation.override(name):
            assert gettext("undeliverable") != "undeliverable"


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_message_of_the_source_is_in_the_catalogue_and_no_other(language):
    source, catalogue = wanted(), written(language)
    del catalogue["", ""]
    assert source, "the extraction finds nothing"
    missing = [f"{message} is not in it" for message in source.keys() - catalogue.keys()]
    gone = [f"{message} is not in the source any more" for message in catalogue.keys() - source.keys()]
    other = [
        f"{message} has another plural"
        for message, plural in source.items()
        if message in catalogue and catalogue[message].plural != plural
    ]
    assert not missing + gone + other, told(missing + gone + other)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_message_is_translated(language):
    catalogue = written(language)
    header = catalogue.pop(("", ""))
    assert not header.is_fuzzy, "Django's own commands drop a fuzzy header's translations"
    count = int(re.search(r"nplurals=(\d)", header.forms[0])[1])
    bad = [
        message
        for message, entry in catalogue.items()
        if entry.is_fuzzy or not all(entry.forms) or len(entry.forms) != (count if entry.plural else 1)
    ]
    assert not bad, told(bad)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_translation_loses_a_placeholder_or_a_blank_at_its_ends(language):
    catalogue = written(language)
    del catalogue["", ""]
    bad = []
    for (context, text), entry in catalogue.items():
        for form in entry.forms:
            # What is said of one and of several has the same values in it.
            same = Counter(PLACEHOLDER.findall(form)) == Counter(PLACEHOLDER.findall(entry.plural or text))
            ends = [(each[:1].isspace(), each[-1:].isspace(), each.count("\n")) for each in (text, form)]
            if not same or ends[0] != ends[1]:
                bad.append((context, text, form))
    assert not bad, told(bad)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_compiled_catalogue_is_the_written_one(language):
    catalogue = {message: entry.forms for message, entry in written(language).items() if not entry.is_fuzzy}
    there = compiled(path_of(language, "mo"))
    # Of the header, what counts is how the language forms its plurals: the tool leaves the dates out.
    plurals = [re.search(r"Plural-Forms: .*", each.pop(("", ""))[0])[0] for each in (catalogue, there)]
    assert plurals[0] == plurals[1]
    other = [message for message in catalogue.keys() | there.keys() if catalogue.get(message) != there.get(message)]
    assert not other, "django.mo was not made from django.po:\n" + told(other)


def test_gettext_itself_finds_the_same_messages(tmp_path):
    """Our own reading of the source against the tool's that makes the catalogues."""
    require(shutil.which("xgettext"), "there is no xgettext on this machine (the package is gettext)")
    copy = tmp_path / "restate_django"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "locale"))
    (copy / "locale").mkdir()
    command = [sys.executable, "-m", "django", "makemessages", "--locale=xx", "--no-location", "--keep-pot"]
    subprocess.run(command, cwd=copy, check=True, capture_output=True)
    text = (copy / "locale" / "django.pot").read_text(encoding="utf-8")
    found = set(re.findall(r'^msgid "(.+)"$', re.sub(r'"\n"', "", text), re.MULTILINE))
    quoted = {message.replace("\\", "\\\\").replace('"', '\\"') for _context, message in wanted()}
    assert quoted == found


def test_the_extraction_sees_what_it_is_to_see():
    source = "from django.utils.translation import gettext as _, ngettext_lazy, pgettext, gettext_noop\n"
    source += "_('a' 'b'); ngettext_lazy('one', 'many', 'n'); pgettext('c', 'd'); gettext_noop('e'); _(x); str('no')"
    assert in_python(source) == [(("", "ab"), ""), (("", "one"), "many"), (("c", "d"), ""), (("", "e"), "")]
    template = (
        "{% translate 'it''s' %}{% blocktranslate count n=n %}{{ n }} a{% plural %}{{ n }} b{% endblocktranslate %}"
    )
    template += '{% translate "d" context "c" %}'
    assert in_template(template)[1:] == [(("", "%(n)s a"), "%(n)s b"), (("c", "d"), "")]


def test_every_fault_of_an_address_is_a_sentence_of_the_catalogues():
    """``url_fault`` words the end of it, and xgettext sees only whole sentences."""
    addresses = [" ", "http://h:x", "ftp://h", "http://a:b@h", "http://:80", "http://h?q"]
    told_of = {deployments.fault_of_address(address) for address in addresses}
    assert told_of == set(deployments.ADDRESS_FAULTS)
    assert len(told_of) == len({url_fault(address) for address in addresses}) == len(addresses)
    with translation.override("de"):
        assert deployments.fault_of_address("ftp://h") == "Die Adresse muss mit http:// oder https:// beginnen."


@pytest.mark.django_db
@pytest.mark.parametrize("language", ["de", "zh-hans"])
@pytest.mark.parametrize("auto_field", ["AutoField", "BigAutoField"])
def test_no_language_makes_a_migration(settings, language, auto_field):
    settings.LANGUAGE_CODE = language
    settings.DEFAULT_AUTO_FIELD = f"django.db.models.{auto_field}"
    with translation.override(language):
        call_command("makemigrations", "restate_django", check=True, dry_run=True, verbosity=0)
