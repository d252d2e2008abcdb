"""bearer: where a token comes from, and that nothing about it that goes wrong repeats it."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pointsman.connection.bearer import Bearer
from pointsman.errors import DeadlineExceeded, PointsmanError, RouteNotFound, Unauthenticated

SECRET = "pmk_1_s3cret"


def write(path: Path, text: str) -> Path:
    """Replace the file as Kubernetes does: another file takes its place."""
    new = path.with_suffix(".new")
    new.write_text(text)
    return new.replace(path)


def refusal(bearer: Bearer) -> Unauthenticated:
    with pytest.raises(Unauthenticated) as caught:
        bearer.token()
    assert caught.value.credential == "bearer token"
    return caught.value


class TestValues:
    def test_none_is_nothing_to_send(self) -> None:
        assert Bearer().token() is None

    def test_a_value_loses_the_newline_of_the_file_that_it_came_from(self) -> None:
        assert Bearer(f"{SECRET}\n").token() == SECRET

    @pytest.mark.parametrize(
        "token", ["", " \n", f"Bearer {SECRET}", f"{SECRET}\r\nx-evil: 1", f"{SECRET}\x00", "schlüssel"]
    )
    def test_what_cannot_be_sent_is_refused_at_once_and_not_repeated(self, token: str) -> None:
        with pytest.raises(ValueError, match="token") as caught:
            Bearer(token)
        assert SECRET not in str(caught.value)

    def test_a_value_and_a_file_contradict_each_other(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="not both"):
            Bearer(SECRET, tmp_path / "token")

    def test_it_is_not_in_the_repr(self) -> None:
        assert SECRET not in repr(Bearer(SECRET))


class TestFunctions:
    def test_is_asked_each_time(self) -> None:
        tokens = iter(["one", "two\n"])
        bearer = Bearer(lambda: next(tokens))
        assert [bearer.token(), bearer.token()] == ["one", "two"]

    def test_one_that_fails_is_named_by_its_error_and_the_text_stays_where_it_was(self) -> None:
        def failing() -> str:
            raise RuntimeError(f"cannot renew {SECRET}")

        error = refusal(Bearer(failing))
        assert "RuntimeError" in str(error)
        assert SECRET not in str(error)
        assert isinstance(error.__cause__, RuntimeError)

    def test_its_own_error_of_the_client_is_raised_as_it_is(self) -> None:
        def failing() -> str:
            raise RouteNotFound("no token route")

        with pytest.raises(RouteNotFound):
            Bearer(failing).token()

    @pytest.mark.parametrize(
        ("answer", "problem"), [("", "missing"), (None, "missing"), (7, "malformed"), (f"{SECRET} x", "malformed")]
    )
    def test_what_is_no_token_is_refused(self, answer: Any, problem: str) -> None:
        error = refusal(Bearer(lambda: answer))
        assert error.problem == problem
        assert SECRET not in str(error)

    def test_an_asynchronous_one_is_not_for_the_sync_client(self) -> None:
        async def token() -> str:
            return SECRET

        with pytest.raises(Unauthenticated, match="AsyncClient"):
            Bearer(token).token()


class TestAsynchronousFunctions:
    async def test_is_awaited(self) -> None:
        async def token() -> str:
            await asyncio.sleep(0)
            return f"{SECRET}\n"

        assert await Bearer(token).token_within(5) == SECRET

    async def test_values_and_plain_functions_are_good_too(self) -> None:
        assert await Bearer().token_within(5) is None
        assert await Bearer(SECRET).token_within(5) == SECRET
        assert await Bearer(lambda: SECRET).token_within(5) == SECRET

    async def test_one_that_takes_too_long_ends_with_the_call(self) -> None:
        async def token() -> str:
            await asyncio.Event().wait()
            return SECRET

        with pytest.raises(DeadlineExceeded, match="token function"):
            await Bearer(token).token_within(0.01)

    @pytest.mark.parametrize("error", [RuntimeError(SECRET), TimeoutError(SECRET)])
    async def test_one_that_fails_is_named_by_its_error(self, error: Exception) -> None:
        async def token() -> str:
            raise error

        with pytest.raises(Unauthenticated, match=type(error).__name__) as caught:
            await Bearer(token).token_within(5)
        assert SECRET not in str(caught.value)

    async def test_what_is_no_token_is_refused(self) -> None:
        async def token() -> Any:
            return None

        with pytest.raises(Unauthenticated, match="empty"):
            await Bearer(token).token_within(5)


class TestFiles:
    def test_the_newline_at_its_end_is_not_of_the_token(self, tmp_path: Path) -> None:
        assert Bearer(token_file=write(tmp_path / "token", f"{SECRET}\n")).token() == SECRET

    def test_is_read_again_when_it_changes(self, tmp_path: Path) -> None:
        path = write(tmp_path / "token", "one")
        bearer = Bearer(token_file=str(path))
        assert bearer.token() == "one"
        write(path, "two")
        assert bearer.token() == "two"

    def test_is_not_read_again_while_it_has_not(self, tmp_path: Path) -> None:
        path = write(tmp_path / "token", "one")
        status = path.stat()
        bearer = Bearer(token_file=path)
        assert bearer.token() == "one"
        path.write_text("two")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert bearer.token() == "one"
        bearer.refused()
        assert bearer.token() == "two"

    def test_a_projected_token_changes_by_the_link_before_it(self, tmp_path: Path) -> None:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "token").write_text(name)
        (tmp_path / "..data").symlink_to("one")
        (tmp_path / "token").symlink_to("..data/token")
        bearer = Bearer(token_file=tmp_path / "token")
        assert bearer.token() == "one"
        (tmp_path / "..new").symlink_to("two")
        (tmp_path / "..new").replace(tmp_path / "..data")
        assert bearer.token() == "two"

    def test_one_that_is_missing_is_named(self, tmp_path: Path) -> None:
        error = refusal(Bearer(token_file=tmp_path / "nothing"))
        assert str(tmp_path / "nothing") in error.message
        assert "No such file" in error.message

    @pytest.mark.parametrize(
        ("content", "says"),
        [(b"", "is empty"), (b"\n", "is empty"), (b"s3cret x", "one word"), ("schlüssel".encode(), "ASCII")],
    )
    def test_one_without_a_token_is_named(self, tmp_path: Path, content: bytes, says: str) -> None:
        path = tmp_path / "token"
        path.write_bytes(content)
        error = refusal(Bearer(token_file=path))
        assert says in error.message
        assert "s3cret" not in error.message

    @pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_text("")])
    def test_once_there_was_one_a_moment_without_is_passed_over_but_not_when_it_was_refused(
        self, tmp_path: Path, spoil: Callable[[Path], object]
    ) -> None:
        path = write(tmp_path / "token", "one")
        bearer = Bearer(token_file=path)
        assert bearer.token() == "one"
        spoil(path)
        assert bearer.token() == "one"
        bearer.refused()
        with pytest.raises(PointsmanError, match="token file"):
            bearer.token()
