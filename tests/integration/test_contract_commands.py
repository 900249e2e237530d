"""`holdfast events`: shown, written, checked, documented; nothing is connected to."""

import json
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import pytest
from apps import copy_app
from commands import environment, holdfast
from pages import ROOT


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    copy_app("contract_shop", tmp_path, "shop")
    return tmp_path


def events(folder: Path, command: str, *arguments: str, code: int = 0) -> str:
    done = holdfast("events", command, "shop:worker", *arguments, folder=folder, env=environment())
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def change(folder: Path, old: str, new: str) -> None:
    shop = copy_app("contract_shop", folder, "shop")
    text = shop.read_text()
    assert old in text
    shop.write_text(text.replace(old, new))


def test_what_there_is_is_shown_with_who_handles_and_who_publishes(shop: Path) -> None:
    shown = json.loads(events(shop, "show", "--json"))

    told = {
        (e["type"], e["version"]): ([r["handler"] for r in e["handled_by"]], e["published_by"]) for e in shown["events"]
    }
    assert told == {
        ("order.charged", 1): (["note"], ["charge"]),
        ("order.created", 1): (["charge"], []),
        ("order.created", 2): (["charge"], []),
    }
    assert shown["raw"] == [{"type": key, "handler": "note", "queue": "shop.note"} for key in ("audit.*", "audit.#")]
    assert shown["publishing_unsaid"] == ["note"]
    assert "shop.charge" in events(shop, "show")


def test_a_breaking_change_fails_with_the_field_and_whom_it_hurts(shop: Path) -> None:
    written = events(shop, "schema", "--to", "contract").split()
    before = {name: (shop / name).read_bytes() for name in written}
    events(shop, "schema", "--to", "contract")
    assert before == {name: (shop / name).read_bytes() for name in written}
    assert sorted(before) == [f"contract/order.{name}.json" for name in ("charged.v1", "created.v1", "created.v2")]
    assert events(shop, "check", "--against", "contract") == "compatible\n"

    change(shop, "total: Decimal =", "amount: Decimal =")
    (shop / "shop.py").write_text((shop / "shop.py").read_text().replace("total=Decimal(0)", "amount=Decimal(0)"))
    told = events(shop, "check", "--against", "contract", code=1)

    assert "breaks  order.created.v2: field amount: a required field added: from nothing to number or string" in told
    assert "breaks  order.created.v2: field total: a required field removed" in told
    assert told.splitlines()[-1] == "2 breaking"
    assert "1 breaking" in events(shop, "check", "--against", "contract", "--for", "producers", code=1)
    [first, _] = json.loads(events(shop, "check", "--against", "contract", "--json", code=1))
    assert (first["field"], first["hurts"], first["breaking"]) == ("amount", ["producers"], True)


def test_a_version_may_be_added_and_not_be_taken_away(shop: Path) -> None:
    events(shop, "schema", "--to", "contract")
    (shop / "contract" / "order.charged.v1.json").unlink()
    (shop / "contract" / "order.created.v3.json").write_text((shop / "contract/order.created.v2.json").read_text())

    told = events(shop, "check", "--against", "contract", code=1).splitlines()

    assert told[0] == "fine    order.charged.v1: a version added: from nothing to a new schema"
    assert told[1] == "breaks  order.created.v3: a version removed: from a schema to nothing (hurts producers)"


def test_a_folder_without_schemas_is_told(shop: Path) -> None:
    done = holdfast("events", "check", "shop:worker", "--against", "none", folder=shop, env=environment())

    assert (done.returncode, done.stderr.count("\n")) == (1, 1) and "none holds no event schemas" in done.stderr


def test_the_documents_are_valid_asyncapi_and_a_page_that_quotes(shop: Path) -> None:
    events(shop, "docs", "--to", "site", "--version", "2.1.0")

    document = json.loads((shop / "site" / "asyncapi.json").read_text())
    schema = json.loads((ROOT / "tests" / "support" / "schemas" / "asyncapi-3.0.0.json").read_text())
    jsonschema.validate(document, schema)
    assert all(resolves(document, name) for name in references(document))
    assert set(document["channels"]) == {"order.created", "order.charged", "audit._2A", "audit._23"}
    assert {document["channels"][key]["address"] for key in ("audit._2A", "audit._23")} == {"audit.*", "audit.#"}
    assert document["operations"]["charge.publishes.order.charged"]["action"] == "send"
    assert len(document["operations"]["charge.handles.order.created"]["messages"]) == 2
    page = (shop / "site" / "index.html").read_text()
    assert "An order was &lt;created&gt;." in page and "in euros &amp; cents" in page and "<script" not in page
    assert unclosed(page) == []


def references(part: object) -> list[str]:
    match part:
        case {"$ref": str(name)}:
            return [name]
        case dict():
            return [name for value in part.values() for name in references(value)]
        case list():
            return [name for value in part for name in references(value)]
        case _:
            return []


def resolves(document: object, reference: str) -> bool:
    for step in reference.removeprefix("#/").split("/"):
        if not isinstance(document, dict) or step not in document:
            return False
        document = document[step]
    return True


def unclosed(page: str) -> list[str]:
    class Reader(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []

        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag != "meta":
                self.open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

    reader = Reader()
    reader.feed(page)
    return reader.open
