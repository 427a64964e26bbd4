import pytest

from waybill_dev.base.options import Options, read_options
from waybill_dev.errors import LocalError


def test_by_default_everything_is_booted_on_local_servers() -> None:
    options = read_options(environment={})
    assert options == Options()
    assert options.postgres_url is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WAYBILL_POSTGRES_URL", "mysql://root@localhost/x"),
        ("WAYBILL_POSTGRES_URL", "postgresql:///no-host"),
        ("WAYBILL_AMQP_URL", "localhost:5672"),
        ("WAYBILL_AMQP_URL", "amqp://host:port"),
        ("WAYBILL_CORS_ORIGINS", "https://shop.example"),
        ("WAYBILL_CORS_ORIGINS", '["https://shop.example/path"]'),
        ("WAYBILL_CORS_ORIGINS", '["*"]'),
        ("WAYBILL_WEBHOOK_ALLOW", "localhost"),
        ("WAYBILL_WEBHOOK_ALLOW", "http://localhost:80"),
        ("WAYBILL_WEB_REDIRECT_URIS", "https://shop.example/signed-in"),
        ("WAYBILL_WEB_REDIRECT_URIS", '["http://shop.example/signed-in"]'),
        ("WAYBILL_PASSWORD_GRANT", "no"),
        ("WAYBILL_RETRY_DELAYS", "5,60"),
        ("WAYBILL_RETRY_DELAYS", "a,b,c"),
        ("WAYBILL_STREAM_BYTES", "10GB"),
        ("WAYBILL_STREAM_BYTES", "1000"),
    ],
)
def test_a_malformed_setting_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(LocalError, match=name):
        read_options(environment={name: value})


def test_well_formed_settings_are_accepted() -> None:
    options = read_options(
        environment={
            "WAYBILL_POSTGRES_URL": "postgresql://me:secret@db.example:5432/postgres",
            "WAYBILL_AMQP_URL": "amqp://me:secret@mq.example/",
            "WAYBILL_CORS_ORIGINS": '["https://shop.example", "http://localhost:3000"]',
            "WAYBILL_WEBHOOK_ALLOW": "localhost:9000, [::1]:9001",
            "WAYBILL_WEB_REDIRECT_URIS": '["https://shop.example/signed-in", "http://[::1]:3000/"]',
            "WAYBILL_PASSWORD_GRANT": "off",
            "WAYBILL_RETRY_DELAYS": "0.5,1,2",
            "WAYBILL_STREAM_BYTES": "50000000000",
        }
    )
    assert options.amqp_url == "amqp://me:secret@mq.example/"
    assert Options.from_json(options.as_json()) == options


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(LocalError, match="redis"):
        read_options(frozenset({"redis"}), environment={})
