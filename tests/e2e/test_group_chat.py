"""Groups in the terminal chat, on the whole system."""

from pathlib import Path

from tests.system import PASSWORD, System
from tests.unit.test_client_chat import line_with, start, type_in


async def test_two_terminals_in_a_group(system: System, tmp_path: Path) -> None:
    common = ("--url", system.url, "--password", PASSWORD)
    alice = await start(tmp_path, "--user", "alice", *common)
    await line_with(alice, "Type the name")
    bob = await start(tmp_path, "--user", "bob", *common)
    await line_with(bob, "Type the name")
    type_in(alice, "/create dinner")
    number = (await line_with(alice, "talking in dinner")).partition("group ")[2].partition(")")[0]
    await line_with(alice, "[dinner] alice · created")
    type_in(alice, "who comes?")
    assert await line_with(alice, "✓") == "✓ 2  who comes?\n"
    type_in(bob, f"/group {number}")
    await line_with(bob, "you are not in")
    type_in(bob, f"/join {number}")
    await line_with(bob, "[dinner] bob · joined bob")
    await line_with(alice, "[dinner] bob · joined bob")
    type_in(bob, "I do")
    assert (await line_with(alice, "I do"))[5:] == " [dinner] bob: I do\n"
    type_in(bob, "/groups")
    await line_with(bob, f"{number}  dinner, 2")
    type_in(alice, "/members")
    await line_with(alice, "alice (owner)")
    type_in(alice, "/kick bob")
    await line_with(alice, "[dinner] alice · kicked bob")
    type_in(bob, "hello?")
    await line_with(bob, "! not_member")
    for chat in (alice, bob):
        type_in(chat, "/quit")
        await chat.wait()
