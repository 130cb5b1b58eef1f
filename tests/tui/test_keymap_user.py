"""The user's own keys: names, clashes, unknown ids, and that the app obeys."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.tui.place import Place, settled
from wbtui.errors import UsageError
from wbtui.tui import keymap
from wbtui.tui.keynames import key_name, shown_key


@pytest.fixture(autouse=True)
def usual() -> Iterator[None]:
    """The usual keys again afterwards."""
    yield
    keymap.use({})


@pytest.mark.parametrize("name", sorted({n for keys in keymap.CONTEXTS.values() for k in keys for n in k.keys}))
def test_every_usual_key_can_be_written_as_it_is_shown_and_by_its_name(name: str) -> None:
    assert key_name(name, "") == name
    shown = shown_key(name)
    if not shown.startswith(("⇧", "M-")):
        assert key_name(shown, "") == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (":", "colon"), ("^d", "ctrl+d"), ("ctrl+D", "ctrl+d"), ("PgDn", "pagedown"), (" ", "space"), ("G", "G"),
        ("^", "circumflex_accent"), ("F5", "f5"),
    ],
)  # fmt: skip
def test_ways_to_write_a_key(text: str, name: str) -> None:
    assert key_name(text, "") == name


def test_unknown_ids_keys_and_clashes_are_errors_with_the_nearest() -> None:
    for user, words in (
        ({"marc": ["z"]}, "expected 'mark'"),
        ({"mark": ["pagedwn"]}, "expected 'pagedown'"),
        ({"mark": ["j"]}, "which is 'down' in main"),
        ({"mark": ["z"], "export": ["z"]}, "which is 'mark' in main"),
        ({"mark": ["ctrl+c"]}, "quit, everywhere"),
    ):
        with pytest.raises(UsageError) as caught:
            keymap.use(user)
        assert words in caught.value.line()
    assert keymap.current() is keymap.CONTEXTS, "a wrong table changes nothing"


def test_two_actions_can_change_places() -> None:
    made = keymap.use({"down": ["k"], "up": ["j"]})
    assert made == {"down": "k", "up": "j"}
    shown = {key.id: key.shown for key in keymap.current()["main"]}
    assert (shown["down"], shown["up"]) == ("k", "j")
    assert ("k", "scroll") in keymap.footer("page", 200)


async def test_the_app_obeys(ready: Place) -> None:
    app = ready.app(ready.address(), user_keys={"down": ["k"], "up": ["j"], "mark": ["z"]})
    async with app.run_test(size=(120, 40)) as pilot:
        main = await settled(pilot)
        await pilot.press("k", "k", "j")
        assert main.view.cursor == int(main.rows.order[1])
        await pilot.press("m")
        assert main.view.marks.count == 0
        await pilot.press("z")
        assert main.view.marks.count == 1
