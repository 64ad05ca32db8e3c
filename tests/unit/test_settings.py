"""Settings: defaults, secrets from files, and one clear line for what is wrong."""

from pathlib import Path

import pytest

from shared.settings import Settings, SettingsError


def test_defaults() -> None:
    settings = Settings.load({})
    assert (settings.edge_port, settings.edge_workers, settings.log_partitions) == (8080, 1, 64)
    assert settings.registration_open
    assert settings.rate_limits
    assert settings.cors_origins == ()


def test_a_secret_comes_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("s" * 32 + "\n")
    assert Settings.load({"IM_JWT_SECRET_FILE": str(path)}).jwt_secret == "s" * 32


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("IM_EDGE_PORT", "http"),
        ("IM_EDGE_PORT", "70000"),
        ("IM_EDGE_WORKERS", "0"),
        ("IM_NATS_URL", "localhost:4222"),
        ("IM_LOG_URL", "file:///x"),
        ("IM_DB_URL", "postgresql://x"),
        ("IM_JWT_SECRET", "short"),
        ("IM_REGISTRATION", "maybe"),
        ("IM_RATE_LIMITS", "no"),
        ("IM_JWT_SECRET_FILE", "/does/not/exist"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load({name: value})
    assert str(caught.value).startswith(name)
    assert "\n" not in str(caught.value)


def test_a_url_with_a_password_is_not_repeated() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.load({"IM_NATS_URL": "user:hunter2@host"})
    assert "hunter2" not in str(caught.value)


def test_value_and_file_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="both"):
        Settings.load({"IM_S3_BUCKET": "a", "IM_S3_BUCKET_FILE": str(tmp_path)})


def test_a_missing_one_is_named_when_it_is_needed() -> None:
    with pytest.raises(SettingsError, match="IM_NATS_URL is not set"):
        Settings.load({}).require("nats_url")
