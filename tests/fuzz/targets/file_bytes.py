"""Files of routes as bytes: the first chooses who reads it and as what; the rest is the file."""

import os
from pathlib import Path

from pointsman.cli.files.formats import Format
from tests.fuzz.files import apply_file, import_file

MODULES = ("pointsman.cli", "pointsman.rules", "pointsman.keys")
WORDS = tuple(
    word.encode()
    for word in (
        *("routes:", "tenants:", "key:", "url:", "active:", "labels:", "a/b/c/d", "https://a.internal", "true", "no"),
        *("- ", "{", "}", "[", "]", ": ", "&a ", "*a", "!!bool ", "!!null ", "? ", "---\n", "...\n", "|\n", "<<: "),
        *('"key": ', '"url": ', '"\\ud800"', "\\u0000", "NaN", "1e999", "\ufeff", "\u2028", "\x85", "\\", '""', "\r\n"),
        *("traffic:", "targets:", "fallbacks:", "a/b/c", "90%", "10%", "0.01%", "%", "v1: "),
        *("key,url,active,labels\n", "tenant,service,env,version,url\n", "a=1;b=2", '"a"b', "=", ";", ","),
    )
)
YAML = b"routes:\n- {key: a/b/c/d, url: https://a.internal, active: yes, labels: {a: b}}\n"
TRAFFIC = b"traffic:\n- {key: a/b/c, targets: {v1: 90%, v2: 10%}, fallbacks: [v0]}\n"
JSON = b'{"key": "a/b/c/d", "url": "https://a.internal", "active": true, "labels": {"a": "b"}}\n'
CSV = b"key,url,active,labels\na/b/c/d,https://a.internal,true,a=1;b=2\n"
PARTS = b"tenant,service,env,version,url\na,b,c,d,https://a.internal\n"
SEEDS = (
    *(b"\x00" + text for text in (YAML, JSON, b"tenants: [a]\n" + YAML, b"routes: [&a {key: a}, *a]", b"\xff")),
    b"\x00routes:\n- {key: a/b/c/d, ur:a\r\r\r\r\rb, url: https://a.internal}",
    *(b"\x01" + text for text in (YAML, b"routes: [{active: !!bool maybe}]", b"\x00" * 9)),
    *(b"\x02" + text for text in (JSON, b"[" * 2000, b'{"url": "\\ud800"}', b'{"tenant": [[]]}')),
    *(b"\x02" + text for text in (b'{"a": {"b": 1, "b": 2}}', b'{"\\ud800": 1, "\\ud800": 1}', b'{"version": 1.10}')),
    *(b"\x03" + text for text in (CSV, PARTS, b'"a"b,url,key', b"key,url\n\x00,", b"key,url,\na/b/c/d,x,\n,,\n")),
    *(b"\x00" + text for text in (TRAFFIC, YAML + TRAFFIC, b"traffic: [{key: a/b/c, targets: {v1: !!bool 100%}}]")),
    *(b"\x00" + text for text in (YAML + b"---\n" + YAML, b"routes: [{labels: }]")),
)

# A file without a name: nothing is left of it when libFuzzer ends the process.
FILE = os.memfd_create("routes")
PATH = Path(f"/proc/self/fd/{FILE}")


def check(data: bytes) -> None:
    """Read the bytes as a file."""
    os.ftruncate(FILE, 0)
    os.pwrite(FILE, data[1:], 0)
    reader = data[0] % 4 if data else 0
    if reader:
        import_file(PATH, list(Format)[reader - 1])
    else:
        apply_file(PATH)
