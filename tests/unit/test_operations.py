"""docs/operations.md keeps up with the code."""

import re

from tests.deployment import ROOT


def test_every_setting_is_documented() -> None:
    code = "".join((ROOT / "shared" / name).read_text() for name in ("settings.py", "telemetry.py"))
    settings = set(re.findall(r'"((?:IM|OTEL)_[A-Z0-9_]+)"', code))
    assert len(settings) > 15
    documented = set(re.findall(r"`([A-Z0-9_]+)`", (ROOT / "docs" / "operations.md").read_text()))
    assert settings <= documented


def test_every_variable_of_the_compose_file_is_documented() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    variables = set(re.findall(r"\$\{([A-Z0-9_]+)", text))
    documented = set(re.findall(r"`([A-Z0-9_]+)`", (ROOT / "docs" / "operations.md").read_text()))
    assert variables <= documented
