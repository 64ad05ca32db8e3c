"""The table of rights in groups: the guide shows it, and what it says about itself is so."""

from schemas.rights import RIGHTS, Action, Role, allowed, markdown
from tests.deployment import ROOT


def test_the_guide_shows_the_table_of_the_code() -> None:
    guide = (ROOT / "docs" / "api.md").read_text()
    shown = guide.partition("<!-- rights:")[2].partition("-->\n")[2].partition("\n<!-- end -->")[0]
    assert shown == markdown()


def test_nobody_has_power_over_his_equals_or_those_above() -> None:
    over: tuple[Action, ...] = ("kick", "mute", "rename", "role", "transfer")
    for action in over:
        for role in Role:
            for target in Role:
                if allowed(action, role, target):
                    assert target < role, (action, role, target)


def test_a_higher_role_may_do_whatever_a_lower_one_may() -> None:
    for action in RIGHTS:
        for target in (None, *Role):
            may = [allowed(action, role, target) for role in Role]
            if action == "leave":
                assert may == [True, True, False], "an owner hands over first"
            else:
                assert may == sorted(may), action
