"""Stands in for curl where it is not installed: what the tests and the pages use of it, by httpx."""

import argparse
import shutil
import ssl
import sys
from pathlib import Path

import httpx

WRITTEN = ("http_code", "http_version", "content_type")


def provide(directory: Path) -> None:
    """Write a program that stands in for curl into ``directory``, where curl is not installed."""
    if shutil.which("curl"):
        return
    root = Path(__file__).resolve().parents[2]
    program = directory / "curl"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{root}" exec "{sys.executable}" -m tests.support.curl "$@"\n')
    program.chmod(0o755)


def main(arguments: list[str]) -> int:
    """Make one request, and print its answer. Returns the exit code: that of curl when there is no answer."""
    given = _options(arguments)
    content = sys.stdin.buffer.read() if given.data == "@-" else given.data.encode() if given.data is not None else None
    headers = dict(_header(line) for line in given.header)
    if content is not None:
        headers.setdefault("content-type", "application/x-www-form-urlencoded")
    if not headers.get("expect", "-"):
        del headers["expect"]
    method = given.request or ("GET" if content is None else "POST")
    url = given.url if "://" in given.url else f"http://{given.url}"
    prior = given.http2_prior_knowledge
    verify = ssl.create_default_context(cafile=given.cacert) if given.cacert else False
    http2 = prior or (url.startswith("https://") and not given.http1)
    try:
        with httpx.Client(http1=not prior, http2=http2, verify=verify, timeout=given.max_time) as client:
            answer = client.request(method, url, content=content, headers=headers)
    except httpx.HTTPError:
        return 7
    sys.stdout.write(answer.text + _written(given.write_out, answer))
    return 0


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="curl", allow_abbrev=False)
    parser.add_argument("url")
    parser.add_argument("-s", "--silent", action="store_true")
    parser.add_argument("-X", "--request", default="")
    parser.add_argument("-H", "--header", action="append", default=[])
    parser.add_argument("-d", "--data", "--data-binary", dest="data")
    parser.add_argument("-w", "--write-out", default="")
    parser.add_argument("--max-time", type=float, default=60.0)
    parser.add_argument("--cacert", default="")
    parser.add_argument("--http1.1", dest="http1", action="store_true")
    parser.add_argument("--http2-prior-knowledge", action="store_true")
    return parser.parse_args(arguments)


def _header(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip().lower(), value.strip()


def _written(form: str, answer: httpx.Response) -> str:
    version = answer.http_version.removeprefix("HTTP/")
    values = (str(answer.status_code), "2" if version == "2" else version, answer.headers.get("content-type", ""))
    text = form.replace("\\n", "\n")
    for name, value in zip(WRITTEN, values, strict=True):
        text = text.replace(f"%{{{name}}}", value)
    return text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
