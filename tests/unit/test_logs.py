"""Log lines: JSON with the model's key for machines, one line with colour for people on a terminal."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from llamamodel_operator.shell.logs import configure_logging


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _logging_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("NO_COLOR", raising=False)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("kopf", "aiohttp.access", "asyncio")}
    root.handlers = []
    yield
    root.handlers, root.level = handlers, level
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def log() -> logging.Logger:
    return logging.getLogger("llamamodel_operator.shell.reconciler")


def json_line(stream: io.StringIO) -> dict[str, Any]:
    (line,) = stream.getvalue().splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_json_line_has_time_level_logger_model_and_message() -> None:
    configure_logging(log_format="json", level="info", stream=(stream := io.StringIO()))
    log().info("applied %s", "Service", extra={"model": "demo/gemma"})
    line = json_line(stream)
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "info",
        "logger": "shell.reconciler",
        "model": "demo/gemma",
        "message": "applied Service",
    }


def test_fields_of_a_line_stand_in_the_place_of_its_message() -> None:
    configure_logging(log_format="json", level="info", stream=(stream := io.StringIO()))
    log().info("status=200", extra={"fields": {"status": 200, "key": None}})
    line = json_line(stream)
    assert line.pop("time").endswith("+00:00")
    assert line == {"level": "info", "logger": "shell.reconciler", "status": 200}
    configure_logging(log_format="text", level="info", stream=(stream := io.StringIO()))
    log().info("status=200", extra={"fields": {"status": 200}})
    assert stream.getvalue().endswith("INFO    status=200\n")


def test_a_line_about_no_model_has_no_model_key() -> None:
    configure_logging(log_format="json", level="info", stream=(stream := io.StringIO()))
    log().warning("x")
    assert "model" not in json_line(stream)


def test_an_exception_is_one_field_of_one_line() -> None:
    configure_logging(log_format="json", level="info", stream=(stream := io.StringIO()))
    log().error("failed", exc_info=ValueError("two\nlines"))
    assert "ValueError: two\nlines" in json_line(stream)["exception"]


def test_a_message_of_several_lines_stays_one_line_of_json() -> None:
    configure_logging(log_format="json", level="info", stream=(stream := io.StringIO()))
    log().info("a\nb „ü“")
    assert json_line(stream)["message"] == "a\nb „ü“"


def test_auto_is_json_where_no_person_reads_and_text_on_a_terminal() -> None:
    configure_logging(log_format="auto", level="info", stream=(pipe := io.StringIO()))
    log().info("hello")
    assert json_line(pipe)["message"] == "hello"
    configure_logging(log_format="auto", level="info", stream=(terminal := Terminal()))
    log().info("hello", extra={"model": "demo/gemma"})
    assert terminal.getvalue().endswith("INFO    demo/gemma: hello\n")


def test_warnings_are_coloured_on_a_terminal() -> None:
    configure_logging(log_format="text", level="info", stream=(terminal := Terminal()))
    log().warning("careful")
    assert terminal.getvalue().startswith("\033[33m")
    assert terminal.getvalue().endswith("\033[0m\n")


@pytest.mark.parametrize("value", ["1", ""])
def test_no_colour_where_no_color_is_set(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("NO_COLOR", value)
    configure_logging(log_format="text", level="info", stream=(terminal := Terminal()))
    log().error("careful")
    assert "\033" not in terminal.getvalue()


def test_no_colour_in_a_file_although_text_is_asked_for() -> None:
    configure_logging(log_format="text", level="info", stream=(stream := io.StringIO()))
    log().error("careful")
    assert "\033" not in stream.getvalue()
    assert stream.getvalue().endswith("ERROR   careful\n")


def test_text_shows_an_exception_below_its_line() -> None:
    configure_logging(log_format="text", level="info", stream=(stream := io.StringIO()))
    log().error("failed", exc_info=ValueError("why"))
    assert stream.getvalue().endswith("failed\nValueError: why\n")


def test_less_severe_lines_than_asked_for_are_not_written() -> None:
    configure_logging(log_format="json", level="warning", stream=(stream := io.StringIO()))
    log().info("chatter")
    assert stream.getvalue() == ""


def test_kopf_is_quiet_unless_everything_is_asked_for() -> None:
    configure_logging(log_format="json", level="info", stream=(stream := io.StringIO()))
    logging.getLogger("kopf.objects").info("chatter")
    assert stream.getvalue() == ""
    configure_logging(log_format="json", level="debug", stream=stream)
    logging.getLogger("kopf.objects").debug("chatter")
    assert json_line(stream)["logger"] == "kopf.objects"
