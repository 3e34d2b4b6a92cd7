"""``restate_codegen``: the module that it writes, what type checkers make of it, and when it has drifted."""

from __future__ import annotations

import ast
import datetime as dt
import importlib.util
import inspect
import itertools
import json
import subprocess
import sys
import uuid
from contextlib import ExitStack

import pytest
from django.core.management import CommandError, call_command
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from restate_django.codegen import Contract, GeneratorFailed, drift, generate
from restate_django.codegen.contracts import Content, HandlerContract
from restate_django.codegen.schemas import pascal_case
from restate_django.codegen.text import docstring
from restate_django.exceptions import InvalidRequest
from restate_django.models import Invocation
from restate_django.testing import HandlerServer
from restate_django.typed_models import Model
from tests.conftest import ROOT

numbers = itertools.count()


def imported(source, tmp_path):
    """Import a module that was generated."""
    name = f"generated_{next(numbers)}"
    path = tmp_path / f"{name}.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where pydantic looks for the names in annotations
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def typed_server(typed_restate_server, settings):
    settings.RESTATE = {
        "default": {"INGRESS_URL": typed_restate_server.ingress_url, "ADMIN_URL": typed_restate_server.admin_url}
    }
    return typed_restate_server


def written(tmp_path, capsys, *services, **options):
    """Run the command and return the module."""
    file = tmp_path / "deep" / "targets.py"
    call_command("restate_codegen", *services, output=str(file), **options)
    assert "targets of" in capsys.readouterr().out
    return file


# ---------------------------------------------------------------- the command


@pytest.mark.parametrize("style", ["pydantic", "typeddict"])
def test_it_writes_a_class_for_each_service_that_can_be_reached(typed_server, tmp_path, capsys, style):
    source = written(tmp_path, capsys, style=style).read_text()
    module = imported(source, tmp_path)
    assert source.startswith("# Written by restate_codegen")
    tree = ast.parse(source)
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    assert {"Delivering", "Depot", "ComExampleOddOnes"} <= set(classes)
    assert "Private" not in source
    assert ast.get_docstring(classes["Depot"]) == 'A depot.\n\nIts key is "its" name, with a \\ in it.'
    properties = {node.name: node for node in classes["Depot"].body if isinstance(node, ast.FunctionDef)}
    assert {name: ast.unparse(node.returns) for name, node in properties.items()} == {
        "add": "typed.Handler[Line, Content]",
        "class_": "typed.Handler[Parcel, str]",
        "clear": "typed.Handler[typed.NoPayload, None]",
        "label": "typed.Handler[bytes, bytes]",
        "list_": "typed.Handler[typed.NoPayload, list[dict[str, Any]]]",
    }
    assert ast.get_docstring(properties["add"]) == "Add a line, and give the content."
    assert repr(module.Delivering("x").run) == "<MainHandler Delivering/x/run>"
    assert repr(module.Delivering("x").hurry) == "<Handler Delivering/x/hurry>"
    assert repr(module.Depot("x").class_) == "<Handler Depot/x/class>"
    assert repr(module.ComExampleOddOnes().anything) == "<Handler com.example.Odd-Ones/anything>"
    # One definition for the same thing, though each handler's schema has its own copy.
    assert source.count("One product, and how many of it.") == 1
    assert source.isascii()
    assert not [line for line in source.splitlines() if len(line) > 120 or line != line.rstrip()]


def test_the_same_services_give_the_same_module_on_either_line(typed_server, tmp_path, capsys, make_restate):
    first = written(tmp_path, capsys).read_text()
    assert written(tmp_path, capsys).read_text() == first
    old = make_restate("1.6.2", handlers=False)
    with ExitStack() as stack:
        handlers = stack.enter_context(HandlerServer("tests.typed_handlers:app", cwd=ROOT))
        handlers.register(old.admin_url)
        from django.test import override_settings

        with override_settings(RESTATE={"default": {"ADMIN_URL": old.admin_url}}):
            assert written(tmp_path, capsys).read_text() == first


def test_it_writes_the_named_services_only(typed_server, tmp_path, capsys):
    source = written(tmp_path, capsys, "Depot").read_text()
    assert "class Depot(" in source
    assert "class Delivering(" not in source
    assert "class Delivery(" not in source
    call_command("restate_codegen", "Depot")
    assert capsys.readouterr().out.strip() == source.strip()


def test_check_tells_drift_and_nothing_else(typed_server, tmp_path, capsys):
    file = written(tmp_path, capsys)

    def check():
        call_command("restate_codegen", output=file, check=True)
        return capsys.readouterr().out

    source = file.read_text()
    assert "is what the server says" in check()
    # Whoever formats it in his own way has changed nothing.
    other = source.replace('service="Depot"', "service='Depot'").replace("\n\n\n", "\n\n\n\n")
    other = other.replace("from restate_django import typed\n", "").replace(
        "from pydantic import", "from restate_django import typed  # first\nfrom pydantic import"
    )
    file.write_text(other)
    assert "is what the server says" in check()
    assert file.read_text() == other
    file.write_text(source.replace("quantity: ", "amount: "))
    with pytest.raises(CommandError, match="has drifted") as drifted:
        check()
    assert drifted.value.returncode == 1
    shown = capsys.readouterr().out
    assert "-    amount: " in shown
    assert "+    quantity: " in shown
    file.write_text("not (Python")
    with pytest.raises(CommandError, match="has drifted"):
        check()
    file.unlink()
    with pytest.raises(CommandError, match="can't be read"):
        check()
    with pytest.raises(CommandError, match="needs --output"):
        call_command("restate_codegen", check=True)


def test_what_can_not_be_written_is_said(typed_server, settings, capsys):
    with pytest.raises(CommandError, match=r"no service 'Depott'. Did you mean Depot\?"):
        call_command("restate_codegen", "Depott")
    with pytest.raises(CommandError, match=r"no service 'x'. It has: .*Depot"):
        call_command("restate_codegen", "x")
    with pytest.raises(CommandError, match="is private"):
        call_command("restate_codegen", "Private")
    with pytest.raises(CommandError, match="no connection 'eu'"):
        call_command("restate_codegen", connection="eu")
    settings.RESTATE = {"default": {"ADMIN_URL": None}}
    with pytest.raises(CommandError, match="ADMIN_URL"):
        call_command("restate_codegen")


def test_a_server_without_services_is_said(make_restate, settings):
    running = make_restate(handlers=False)
    settings.RESTATE = {"default": {"ADMIN_URL": running.admin_url}}
    with pytest.raises(CommandError, match="knows no service"):
        call_command("restate_codegen")


def test_without_the_generator_the_extra_is_named(typed_server, monkeypatch):
    monkeypatch.setitem(sys.modules, "datamodel_code_generator", None)
    with pytest.raises(CommandError, match=r"restate-django\[codegen\]"):
        call_command("restate_codegen")


def test_a_schema_that_is_none_is_said():
    with pytest.raises(GeneratorFailed, match="can make nothing of the schemas"):
        generate([contract("Cart", handler("f", {"type": "array", "items": 3}))])


# ---------------------------------------------------------------- what a type checker says

GOOD = """
import datetime as dt
from uuid import uuid4

from restate_django import Outgoing, send_many, Service, VirtualObject, Workflow
from restate_django.models import Invocation
from {module} import Address, Content, Delivering, Delivery, Depot, Line, Parcel


async def story(depot: Depot) -> None:
    line = Line(sku="mug")
    row: Invocation = depot.add.send(line, delay=dt.timedelta(hours=1), idempotency_key="a")
    row = await depot.add.asend(line)
    content: Content = depot.add.call(Line(sku="mug", quantity=2), timeout=5)
    content = await depot.add.acall(line)
    content = depot.add.parse_output(row.output_value)
    depot.clear.send()
    nothing: None = depot.clear.call()
    picture: bytes = depot.label.call(b"png")
    lines: list[dict[str, object]] = [dict(each) for each in depot.list_.call()]
    made: list[Outgoing] = [depot.add.outgoing(line, headers={{"X-A": "1"}})]
    send_many(made)
    parcel = {parcel}
    run = Delivering("x").run
    delivery: Delivery = run.attach(timeout=5)
    known = run.output()
    if known.ready:
        delivery = known.value
    delivery = await run.aattach()
    row = run.send(parcel)
    print(row, content, nothing, picture, lines, delivery)


Service("Greeter").greet.send({{"name": "Mary"}})
VirtualObject("Cart")["k"].clear.send()
output: str = Workflow("Signup")["k"].run.attach()
"""
WRONG = """
from {module} import ComExampleOddOnes, Delivering, Depot, Line, Parcel

depot = Depot("x")
depot.add.send("mug")  # a wrong payload
depot.add.call(Parcel)  # a class is none
depot.add.send()  # a payload is missing
depot.clear.send(Line(sku="mug"))  # it takes none
depot.add.send(Line(sku="mug"), key="y")  # the key is chosen already
depot.add.call(Line(sku="mug"), delay=3)  # a call has no delay
depot.add.send(Line(sku="mug"), idempotency_key=3)  # an option of another type
depot.ad.send(Line(sku="mug"))  # no such handler
depot.add.attach()  # no workflow
Delivering("x").hurry.attach()  # not its main handler
total: str = depot.add.call(Line(sku="mug"))  # another output
Depot()  # the key is missing
ComExampleOddOnes("x")  # a service has none
Line(sku="mug", quantity="many")  # a wrong value
Line()  # a value is missing
"""
PARCELS = {
    "pydantic": 'Parcel(number=uuid4(), to=Address(street="Main", class_="work"), lines=[line])',
    "typeddict": 'Parcel(number=str(uuid4()), to={"street": "Main", "class": "work"}, lines=[line])',
}


@pytest.mark.once
def test_the_generated_code_passes_mypy_strict_and_its_misuse_does_not(typed_server, tmp_path, capsys):
    """In a project that has neither stubs for Django nor a plugin for anything."""
    for style, parcel in PARCELS.items():
        module = f"targets_{style}"
        call_command("restate_codegen", output=tmp_path / f"{module}.py", style=style)
        (tmp_path / f"good_{style}.py").write_text(GOOD.format(module=module, parcel=parcel))
        (tmp_path / f"wrong_{style}.py").write_text(WRONG.format(module=module))
    (tmp_path / "mypy.ini").write_text("[mypy]\nstrict = True\nfollow_imports = silent\npretty = False\n")
    command = [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--cache-dir", "cache", "--no-error-summary"]
    done = subprocess.run([*command, "."], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.stderr == ""
    complaints = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert [line for line in complaints if not line.startswith("wrong_")] == []
    wanted = {number for number, line in enumerate(WRONG.splitlines(), 1) if "#" in line}
    for style in PARCELS:
        found = {int(line.split(":")[1]) for line in complaints if line.startswith(f"wrong_{style}.py")}
        assert wanted - found == set(), f"{style}: mypy lets these lines pass"
        assert found == wanted


# ---------------------------------------------------------------- used against the server


@pytest.mark.django_db(transaction=True)
def test_pydantic_targets_send_models_and_give_models(typed_server, tmp_path, capsys):
    made = imported(written(tmp_path, capsys).read_text(), tmp_path)
    depot = made.Depot(uuid.uuid4().hex)
    content = depot.add.call(made.Line(sku="mug"), timeout=10)
    assert isinstance(content, made.Content)
    assert content.changed_at == dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    assert content.lines == [made.Line(sku="mug", quantity=1)]
    row = depot.add.send(made.Line(sku="lamp", quantity=2))
    row.attach(timeout=10)
    assert depot.add.parse_output(row.output_value).total == 2
    assert row.payload == {"sku": "lamp", "quantity": 2}
    assert [line["sku"] for line in depot.list_.call()] == ["mug", "lamp"]
    assert depot.clear.call() is None
    assert depot.label.call(b"\x89PNG") == b"\x89PNG"
    address = made.Address(street="Main", class_="work")
    number = uuid.uuid4()
    parcel = made.Parcel(number=number, to=address, lines=[made.Line(sku="mug")])
    assert depot.class_.call(parcel) == "work"
    assert Invocation.objects.get(handler="class").payload == {
        "number": str(number),
        "to": {"street": "Main", "class": "work"},
        "lines": [{"sku": "mug", "quantity": 1}],
    }, "what was not given is not sent"
    delivering = made.Delivering(uuid.uuid4().hex)
    delivering.run.send(parcel)
    assert delivering.run.attach(timeout=10) == made.Delivery(parcel=number, on=dt.date(2026, 1, 2))
    assert delivering.run.output().value.parcel == number
    assert delivering.hurry.call(3) == 3


@pytest.mark.django_db(transaction=True)
def test_typed_dict_targets_send_and_give_dicts(typed_server, tmp_path, capsys):
    made = imported(written(tmp_path, capsys, style="typeddict").read_text(), tmp_path)
    content = made.Depot(uuid.uuid4().hex).add.call(made.Line(sku="mug", quantity=2), timeout=10)
    assert content["lines"] == [{"sku": "mug", "quantity": 2}]
    assert content["changed_at"].startswith("2026-01-02")


def test_a_model_leaves_out_what_was_not_given():
    import pydantic

    class Inner(Model):
        text: str | None = None

    class Outer(Model):
        inner: Inner
        null: str | None = None
        from_: int | None = pydantic.Field(default=None, alias="from")
        number: int = 1

    assert Outer(inner=Inner()).model_dump() == {"inner": {}, "number": 1}
    given = Outer(inner=Inner(text=None), null=None, **{"from": None})
    assert given.model_dump(by_alias=True) == {"inner": {"text": None}, "null": None, "from": None, "number": 1}
    assert json.loads(Outer(inner=Inner(text="a"), from_=3).model_dump_json(by_alias=True)) == {
        "inner": {"text": "a"},
        "from": 3,
        "number": 1,
    }


# ---------------------------------------------------------------- odd services


def contract(name="Cart", *handlers, kind="Service", documentation="", document=None):
    return Contract(name, kind, documentation, handlers, document or {})


def handler(name, takes=None, gives=None, *, documentation="", is_main=False, content_type="application/json"):
    def content(schema):
        return None if schema is None else Content(content_type, schema)

    return HandlerContract(name, documentation, is_main, content(takes), content(gives))


def record(title, **properties):
    return {"type": "object", "title": title, "properties": properties, "required": sorted(properties)}


TEXT, NUMBER = {"type": "string"}, {"type": "integer"}


def signatures(source, name):
    """What each property of a class is said to return."""
    (target,) = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == name]
    return {node.name: ast.unparse(node.returns) for node in target.body if isinstance(node, ast.FunctionDef)}


both_styles = pytest.mark.parametrize("style", ["pydantic", "typeddict"])


@both_styles
def test_types_of_one_name_and_different_content_are_told_apart(style, tmp_path):
    one = contract("Shop", handler("add", record("Line", sku=TEXT)), handler("drop", record("Line", sku=TEXT)))
    other = contract("Depot", handler("add", record("Line", sku=NUMBER)))
    source = generate([other, one], style)
    assert signatures(source, "Shop") == dict.fromkeys(("add", "drop"), "typed.Handler[ShopLine, None]")
    assert signatures(source, "Depot") == {"add": "typed.Handler[DepotLine, None]"}
    imported(source, tmp_path)


@both_styles
def test_a_service_and_a_type_of_one_name_are_two_classes(style, tmp_path):
    source = generate([contract("Order", handler("run", record("Order", sku=TEXT)), kind="Workflow")], style)
    assert signatures(source, "OrderWorkflow") == {"run": "typed.Handler[Order, None]"}
    imported(source, tmp_path)


@both_styles
def test_services_whose_names_look_alike_are_two_classes(style, tmp_path):
    source = generate([contract("a-b", handler("f", TEXT)), contract("a.b", handler("f", NUMBER))], style)
    assert signatures(source, "AB") == {"f": "typed.Handler[str, None]"}
    assert signatures(source, "ABService") == {"f": "typed.Handler[int, None]"}
    assert repr(imported(source, tmp_path).ABService().f) == "<Handler a.b/f>"


@both_styles
def test_handlers_may_be_named_like_what_their_class_needs(style, tmp_path):
    names = ("Item", "class", "class_", "dict", "list", "property", "str", "typed", "_handler", "get", "_1")
    takes = {"type": "array", "items": record("Item", sku=TEXT)}
    source = generate([contract("Cart", *(handler(name, takes, TEXT) for name in names), kind="VirtualObject")], style)
    made = imported(source, tmp_path).Cart("k")
    attributes = list(signatures(source, "Cart"))
    assert attributes == [
        "Item_", "class_", "class__", "dict", "list_", "property_", "str_", "typed_", "handler", "get", "handler_1",
    ]  # fmt: skip
    assert [getattr(made, name).name for name in attributes] == list(names)


@both_styles
def test_schemas_of_many_kinds_have_types(style, tmp_path):
    line = record("Line", sku=TEXT)
    kinds = {
        "any": (True, "Any"),
        "nothing_said": ({}, "Any"),
        "null": ({"type": "null"}, "None"),
        "words": ({"enum": ["a", "b"]}, "Literal['a', 'b']"),
        "limited": ({"type": "integer", "minimum": 3}, "int"),
        "maybe": ({"type": ["string", "null"]}, "str | None"),
        "mapping": ({"type": "object", "additionalProperties": NUMBER}, "dict[str, int]"),
        "record": (line, "Line"),
        "maybe_record": ({**line, "type": ["object", "null"]}, "Line | None"),
        "records": ({"type": "array", "items": {"$ref": "#/components/schemas/x"}}, "list[X]"),
        "elsewhere": ({"$ref": "https://example.com/schema.json"}, "Any"),
        "nowhere": ({"$ref": "#/$defs/Nowhere"}, "Any"),
        "untitled": ({"type": "object", "properties": {"a": {"type": "object", "properties": {"b": TEXT}}}}, None),
    }
    document = {"components": {"schemas": {"x": {**record("X"), "properties": {"title": TEXT}}}}}
    handlers = [handler(name, schema) for name, (schema, _) in kinds.items()]
    source = generate([contract("Cart", *handlers, document=document)], style)
    found = signatures(source, "Cart")
    for name, (_, wanted) in kinds.items():
        if wanted is not None:
            assert found[name] == f"typed.Handler[{wanted}, None]", name
    assert found["untitled"] == "typed.Handler[UntitledRequest, None]"
    assert "title: " in source, "a property that is called title is one"
    imported(source, tmp_path)


@both_styles
def test_definitions_that_lead_back_to_themselves_are_one(style, tmp_path):
    def document(where):
        at = f"#/components/schemas/{where}/$defs"
        tree = {
            "type": "object",
            "title": "Tree",
            "properties": {
                "leaf": {"$ref": f"{at}/Leaf"},
                "left": {"anyOf": [{"$ref": f"{at}/Tree"}, {"type": "null"}]},
            },
        }
        leaf = {"type": "object", "title": "Leaf", "properties": {"of": {"$ref": f"{at}/Tree"}}}
        return {"$defs": {"Tree": tree, "Leaf": leaf}, "$ref": f"{at}/Tree"}

    schemas = {where: document(where) for where in ("aRequest", "bRequest")}
    handlers = [handler(name, {"$ref": f"#/components/schemas/{name}Request"}) for name in "ab"]
    source = generate([contract("Wood", *handlers, document={"components": {"schemas": schemas}})], style)
    assert signatures(source, "Wood") == dict.fromkeys("ab", "typed.Handler[Tree, None]")
    assert source.count("class Tree(") == source.count("class Leaf(") == 1
    imported(source, tmp_path)


@both_styles
def test_a_schema_of_an_older_draft_may_lead_back_to_its_root(style, tmp_path):
    """As a server shows it: what was ``#`` and ``#/definitions/Leaf`` leads into its own document."""
    here = "#/components/schemas/fRequest"
    tree = record("Tree", left={"$ref": here}, leaf={"$ref": f"{here}/definitions/Leaf"})
    tree |= {"definitions": {"Leaf": {"type": "object", "properties": {"x": NUMBER}}}, "required": ["leaf"]}
    document = {"components": {"schemas": {"fRequest": tree}}}
    source = generate([contract("Wood", handler("f", {"$ref": here}), document=document)], style)
    assert signatures(source, "Wood") == {"f": "typed.Handler[Tree, None]"}
    assert "FRequest" not in source
    imported(source, tmp_path)


@both_styles
def test_what_is_not_json_is_bytes_or_text(style):
    handlers = [
        handler("picture", True, True, content_type="image/png"),
        handler("text", True, True, content_type="text/plain; charset=utf-8"),
        handler("anything", True, True, content_type="*/*"),
        handler("problem", TEXT, TEXT, content_type="application/problem+json"),
    ]
    source = generate([contract("Files", *handlers)], style)
    assert signatures(source, "Files") == {
        "picture": "typed.Handler[bytes, bytes]",
        "text": "typed.Handler[str | bytes, str]",
        "anything": "typed.Handler[Any, Any]",
        "problem": "typed.Handler[str, str]",
    }
    assert 'content_type="image/png"' in source
    assert 'content_type="application/problem+json"' in source
    assert 'content_type="text/plain; charset=utf-8"' in source


@both_styles
def test_a_description_stays_a_description(style, tmp_path):
    """It is text of whoever wrote the handler: none of it may become code."""
    wicked = '"""\nimport os\nos.abort()\n"""\\'
    odd = "a\u2028# b\x0cc 'd' \"e\" é"  # more ends of lines than Python's own
    field = {"type": "string", "description": odd, "enum": [odd, "b"], "default": odd}
    told = handler("f", {**record("X", a=field), "description": wicked}, field, documentation=wicked)
    made = imported(generate([contract("Cart", told, documentation=wicked)], style), tmp_path)
    assert inspect.getdoc(made.Cart) == inspect.cleandoc(wicked)
    assert inspect.getdoc(made.Cart.f) == inspect.cleandoc(wicked)
    assert inspect.getdoc(made.X) == inspect.cleandoc(wicked)


@given(st.text(st.characters(codec="utf-8"), max_size=40) | st.text('"\\ \na', max_size=12))
@hypothesis_settings(max_examples=200, deadline=None)
def test_any_text_is_a_docstring(text):
    source = docstring(text, "    ")
    tree = ast.parse(f"class A:\n{source}")
    assert len(tree.body[0].body) == 1
    seen = "".join((ast.get_docstring(tree.body[0]) or "").split())
    assert seen == "".join(each for each in text if each.isprintable() and not each.isspace())


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("Cart", "Cart"), ("cart", "Cart"), ("com.example.Cart-2", "ComExampleCart2"), ("_x", "X"), ("1a", "The1a")],
)
def test_names_of_classes(name, wanted):
    assert pascal_case(name) == wanted


def test_drift_is_what_code_means():
    old = "# a\nimport a, b\nfrom c import d\n\ndef f():\n    '''Do.\n\n       It.'''\n    return 'x'\n"
    new = 'from c import d\nimport b\nimport a\ndef f():\n    """Do.\n\n    It.\n    """\n    return "x"\n'
    assert drift(old, new, "m.py") == drift(new, old, "m.py") == ""
    assert "+    return 'y'" in drift(old, new.replace('"x"', '"y"'), "m.py")
    assert "-import b" in drift(old, new.replace("import b\n", ""), "m.py")
    assert "It. All." in drift(old, new.replace("It.", "It. All."), "m.py")


def test_unknown_services_are_refused_before_anything_is_read():
    from restate_django.codegen import read_contracts

    class Admin:
        def list_services(self):
            return []

    with pytest.raises(InvalidRequest, match="It has: none"):
        read_contracts(Admin(), ["Cart"])
