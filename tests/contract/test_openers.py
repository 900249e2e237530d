"""The kinds of databases that `make test` runs every suite on: one for each opener there is."""

from contextlib import AsyncExitStack
from pathlib import Path
from typing import get_args

import pytest
from databases import EACH_OPENER, KINDS

from holdfast.sql.openers import Opener, OpenerAsync


@pytest.mark.server
async def test_each_opener_is_under_test_by_one_kind(postgres_url: str, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        chosen = [kind for kind in KINDS if kind.name in EACH_OPENER]
        opened = [await kind.open(stack, postgres_url, str(tmp_path / "shop.db")) for kind in chosen]

    openers = [*str(Opener).split(" | "), *(opener.__name__ for opener in get_args(OpenerAsync))]
    assert sorted(type(database.opener).__name__ for database in opened) == sorted(openers)
