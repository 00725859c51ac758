"""The console's files as a door gives them."""

from __future__ import annotations

import re
from pathlib import Path

from actors.listeners.http_messages import HttpReply, HttpRequest
from tests.actors.listeners.doors import make_door

PAGE = Path(__file__).parents[3] / "actors/console/page"


async def get(door: object, path: str, **headers: str) -> HttpReply:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    reply = await door.routes.answer(  # type: ignore[attr-defined]
        HttpRequest(method="GET", path=path, headers=sent)
    )
    assert isinstance(reply, HttpReply)
    return reply


async def test_the_page_and_everything_it_names_are_there(tmp_path: Path) -> None:
    door = make_door(tmp_path)
    page = b"".join((await get(door, "/ui")).chunks).decode()

    named = re.findall(r'(?:src|href)="(ui/[^"]+)"', page)

    assert sorted(named) == ["ui/console.css", "ui/console.js"]
    for path in named:
        assert (await get(door, f"/{path}")).status == 200


async def test_nothing_comes_from_another_host(tmp_path: Path) -> None:
    reply = await get(make_door(tmp_path), "/ui")

    policy = dict(reply.headers)["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
    assert "frame-ancestors 'none'" in policy
    for file in PAGE.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//cdn|@import|innerHTML|insertAdjacentHTML", text), file


async def test_a_page_that_has_not_changed_costs_no_bytes(tmp_path: Path) -> None:
    door = make_door(tmp_path)
    first = await get(door, "/ui/console.js")

    again = await get(door, "/ui/console.js", if_none_match=dict(first.headers)["etag"])

    assert (again.status, again.num_bytes) == (304, 0)
    assert dict(again.headers)["cache-control"] == "no-cache"


async def test_tags_are_compared_as_browsers_and_caches_send_them(tmp_path: Path) -> None:
    door = make_door(tmp_path)
    etag = dict((await get(door, "/ui")).headers)["etag"]

    for sent in (f"W/{etag}", f'"other", {etag}', f'W/"other",W/{etag}', "*"):
        assert (await get(door, "/ui", if_none_match=sent)).status == 304, sent
    for sent in ('"other"', "", etag.strip('"')):
        assert (await get(door, "/ui", if_none_match=sent)).status == 200, sent
