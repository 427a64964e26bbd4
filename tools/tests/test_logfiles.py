from pathlib import Path

from waybill_dev.supervision.logfiles import LIMIT_BYTES, Follower, matching, rotate


def test_a_name_selects_all_roles_and_processes_of_a_service(tmp_path: Path) -> None:
    for name in ("orders-api", "orders-api-2", "orders-relay", "postgres"):
        (tmp_path / f"{name}.log").touch()
    assert [log.stem for log in matching(tmp_path, ("orders",))] == ["orders-api", "orders-api-2", "orders-relay"]
    assert [log.stem for log in matching(tmp_path, ("orders:api",))] == ["orders-api", "orders-api-2"]
    assert len(matching(tmp_path, ())) == 4


def test_a_follower_yields_each_whole_line_once(tmp_path: Path) -> None:
    log = tmp_path / "orders-api.log"
    log.write_text("old\n")
    follower = Follower(tmp_path, since_end=True)
    with log.open("a") as writer:
        writer.write("one\ntw")
        writer.flush()
        assert list(follower.lines()) == [("orders-api", "one")]
        writer.write("o\n")
    assert list(follower.lines()) == [("orders-api", "two")]
    assert list(follower.lines()) == []


def test_a_log_above_the_limit_is_emptied_while_its_writer_appends(tmp_path: Path) -> None:
    log = tmp_path / "orders-api.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"x" * LIMIT_BYTES)
        rotate(tmp_path)
        assert log.stat().st_size == LIMIT_BYTES
        writer.write(b"y\n")
        rotate(tmp_path)
        writer.write(b"after\n")
    assert log.read_bytes() == b"after\n"
    assert (tmp_path / "orders-api.log.1").stat().st_size == LIMIT_BYTES + 2


def test_a_follower_starts_again_when_the_log_was_emptied(tmp_path: Path) -> None:
    log = tmp_path / "mail.log"
    log.write_text("a long first line\n")
    follower = Follower(tmp_path, since_end=True)
    log.write_text("new\n")
    assert list(follower.lines()) == [("mail", "new")]
