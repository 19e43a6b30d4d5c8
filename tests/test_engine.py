"""How engines are made: what every process's connections have in common."""

from webapp.config import Settings, load_settings
from webapp.engine import engine_options, make_engine


def options(**environ: str) -> dict[str, object]:
    return engine_options(load_settings({"DATABASE_URL": "postgresql://u@h/d", **environ}))


def test_a_server_that_is_gone_without_a_word_is_found_out_within_seconds() -> None:
    given = options()["connect_args"]
    assert isinstance(given, dict)
    expected = {
        "keepalives": 1,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 2,
        "tcp_user_timeout": 5000,
    }
    assert expected.items() <= given.items()
    assert given["connect_timeout"] == 2


def test_prepared_statements_can_be_switched_off() -> None:
    assert "prepare_threshold" not in options()["connect_args"]  # type: ignore[operator]
    assert options(DB_PREPARED_STATEMENTS="off")["connect_args"]["prepare_threshold"] is None  # type: ignore[index]


def test_errors_do_not_hold_parameters() -> None:
    assert options()["hide_parameters"] is True


def test_libpq_takes_these_options_on_a_unix_socket_as_well(settings: Settings) -> None:
    engine = make_engine(settings)
    try:
        with engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT 1").scalar() == 1
            asked = connection.connection.driver_connection.info.get_parameters()  # type: ignore[union-attr]
            assert asked["tcp_user_timeout"] == "5000"
    finally:
        engine.dispose()
