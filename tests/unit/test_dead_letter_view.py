"""Dead letters as they are shown: the same on the terminal and on the page."""

import io
from datetime import timedelta
from pathlib import Path

import pytest
from builders import NOON, a_message
from rich.console import Console
from rich.table import Table

import holdfast.dashboard as page_folder
from holdfast import ConfigurationError
from holdfast.cli.dead.tables import groups_table, letters_table, print_letter, queues_table
from holdfast.dashboard.page import templates
from holdfast.dead_letters import Index, Selection
from holdfast.dead_letters.letter import Letter, read_letter
from holdfast.dead_letters.view import across, age, body_text, facts_of, scaled

ON_PAGE = templates()


def a_letter(body: bytes = b"{}", seconds_ago: float = 90.0) -> Letter:
    died = {"x-death": [{"reason": "rejected", "queue": "q", "time": NOON - timedelta(seconds=seconds_ago)}]}
    return read_letter(a_message(body, headers=died), key="k", position=1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.9, "0 s"),
        (90, "90 s"),
        (119.9, "119 s"),
        (120, "2 min"),
        (7_199, "119 min"),
        (7_200, "2 h"),
        (86_400, "24 h"),
        (172_800, "2 d"),
        (-5, "0 s"),
    ],
)
def test_an_age_is_said_in_the_largest_unit_of_which_it_has_two(seconds: float, text: str) -> None:
    assert age(NOON - timedelta(seconds=seconds), NOON) == text


def test_terminal_and_page_say_the_same_age() -> None:
    letter = a_letter()

    terminal = Console(file=io.StringIO(), width=200)
    terminal.print(letters_table([letter]))
    page = ON_PAGE.from_string("{{ letter.failed_at | age }}").render(letter=letter)

    assert f" {page} " in terminal.file.getvalue()  # type: ignore[attr-defined]


def test_terminal_and_page_show_the_same_body() -> None:
    letter = a_letter(b'{"order": "\xe2\x80\xae o-1"}')

    terminal = Console(file=io.StringIO(), width=200)
    print_letter(letter, terminal)
    body, form = body_text(letter.message.body)

    assert form == "JSON" and "\\u202e" in body
    assert body in terminal.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("body", "text", "form"),
    [
        (b'{"a":1}', '{\n  "a": 1\n}', "JSON"),
        (b"plain\n\x1b[31m", "plain\n\\x1b[31m", "text"),
        (b"", "", "text"),
        (b"\xff\x00A", f"00000000  {'ff 00 41':<47}  ..A", "binary"),
        (b"[" * 100_000, "[" * 20_000 + "… (80,000 more)", "text"),
    ],
)
def test_a_body_is_shown_by_what_it_is(body: bytes, text: str, form: str) -> None:
    assert body_text(body) == (text, form)


def test_terminal_and_page_show_no_secret_of_what_other_software_wrote() -> None:
    headers = {"holdfast-error-message": "Pwd=canary;", "cookie": "canary", "note": "Authorization: Bearer canary"}
    letter = read_letter(a_message(headers=headers), key="k", position=1)

    terminal = Console(file=io.StringIO(), width=200)
    print_letter(letter, terminal)
    page = ON_PAGE.from_string("{{ letter.error_message }}{% for n, v in items %}{{ n | header(v) }}{% endfor %}")
    shown = page.render(letter=letter, items=headers.items())

    for text in (shown, terminal.file.getvalue()):  # type: ignore[attr-defined]
        assert "canary" not in text and "***" in text


def test_a_chart_shows_every_count_and_the_highest_at_full_height() -> None:
    assert scaled([0, 1, 500, 1000], 8) == [0, 1, 4, 8]
    assert scaled([], 8) == [] and scaled([0, 0], 8) == [0, 0]
    drawn = ON_PAGE.from_string('{% from "parts.html" import chart %}{{ chart((0, 1, 2)) }}').render()
    assert drawn.count("<rect") == 2


def shown(table: Table) -> str:
    """What a terminal shows of a table."""
    terminal = Console(file=io.StringIO(), width=200)
    terminal.print(table)
    return terminal.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_a_group_of_letters_of_one_age_names_it_once() -> None:
    index = Index(None)
    index.add([a_letter()])

    assert " to " not in shown(groups_table(index.groups()))


def test_the_tables_of_a_terminal_name_the_class_of_an_error_without_its_module() -> None:
    letter = read_letter(a_message(headers={"holdfast-error-type": "shop.errors.CardDeclined"}), key="k", position=1)
    index = Index(None)
    index.add([letter])

    for table in (groups_table(index.groups()), letters_table([letter])):
        assert "CardDeclined: " in shown(table) and "shop.errors" not in shown(table)


def test_terminal_and_page_have_one_word_for_a_letter_that_was_read() -> None:
    page = (Path(page_folder.__file__).parent / "templates" / "letter.html").read_text()

    assert "lent and returned" in facts_of(read_letter(a_message(), key="k", position=1, returns=2))
    assert "lent and returned" in page


def test_each_column_of_the_queues_has_a_heading() -> None:
    assert all(column.header for column in queues_table([]).columns)


def test_groups_of_several_queues_are_joined_by_the_kind_of_failure() -> None:
    one, two = Index(None), Index(None)
    one.add(
        read_letter(a_message(bytes([n]), headers={"holdfast-fingerprint": "f1"}), key=str(n), position=n)
        for n in (1, 2)
    )
    two.add(read_letter(a_message(headers={"holdfast-fingerprint": f"f{n}"}), key=str(n), position=n) for n in (1, 2))

    joined = across({"a.dead": one.groups(), "b.dead": two.groups()})

    assert [(group.fingerprint, count, counts) for group, count, counts in joined] == [
        ("f1", 3, {"a.dead": 2, "b.dead": 1}),
        ("f2", 1, {"b.dead": 1}),
    ]


def test_the_filters_of_an_address_are_those_of_the_command_line() -> None:
    typed = Selection(id=("a", "b"), type="order.created", since="2h")

    read = Selection.of(
        [("type", " order.created "), ("id", "a"), ("since", "2h"), ("id", "b"), ("page", "3"), ("text", "")]
    )

    assert read == typed
    assert Selection.of(typed.pairs()) == typed
    assert typed.type == "order.created" and typed.id == ("a", "b")


def test_a_filter_with_a_time_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="is no time"):
        Selection(until="never")
