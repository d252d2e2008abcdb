"""Rows that somebody's program wrote: the same ones as JSON lines, CSV and YAML are the same entries, or problems."""

import csv
import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hypothesis import strategies as st

from pointsman.cli.files.formats import Format
from tests.fuzz.files import apply_file, import_file
from tests.fuzz.hostile import TEXTS

PARTS = st.one_of(st.sampled_from(("a", "b-1", "v1.0", "é", "", "a" * 64)), st.text(max_size=4))
KEYS = st.one_of(
    st.tuples(*[st.sampled_from(("a", "b"))] * 4).map("/".join), st.lists(PARTS, min_size=3, max_size=5).map("/".join)
)
URLS = st.one_of(st.sampled_from(("https://a.internal", "grpc+unix://host/path", *TEXTS)), st.text(max_size=9))
LABELS = st.dictionaries(st.sampled_from(("tier", "k8s.io/name", *TEXTS)), st.sampled_from(TEXTS), max_size=3)
ROW = st.fixed_dictionaries(
    {"key": KEYS, "url": URLS},
    optional={"active": st.booleans(), "labels": st.one_of(LABELS, st.none(), st.text(max_size=3))},
)
INPUTS = st.lists(ROW, max_size=5)


def check(rows: Sequence[Mapping[str, object]]) -> None:
    """Read the rows in every format that can hold them."""
    with tempfile.TemporaryDirectory(prefix="pointsman-fuzz-") as place:
        lines = Path(place, "routes.jsonl")
        lines.write_text("".join(json.dumps(row, ensure_ascii=len(rows) % 2 == 0) + "\n" for row in rows))
        entries = import_file(lines, Format.JSONL)
        # Every JSON document is a YAML document, but for escapes of half a character or of control characters.
        document = Path(place, "routes.yaml")
        document.write_text(json.dumps({"routes": rows}))
        apply_file(document)
        if all(_plain(row) for row in rows):
            whole = import_file(document, Format.YAML)
            assert [replace(each, line=0) for each in whole] == [replace(each, line=0) for each in entries]
        table = Path(place, "routes.csv")
        table.write_text(_csv(rows), newline="")
        import_file(table, Format.CSV)


def _plain(row: Mapping[str, object]) -> bool:
    # libyaml reads the escapes of JSON for what is beyond 16 bits as two halves, and refuses them.
    return json.dumps(row).isascii() and "\\u" not in json.dumps(row) and row.get("labels", {}) is not None


def _csv(rows: Sequence[Mapping[str, object]]) -> str:
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(("key", "url", "active", "labels"))
    for row in rows:
        labels = row.get("labels")
        pairs = ";".join(f"{name}={value}" for name, value in labels.items()) if isinstance(labels, Mapping) else labels
        writer.writerow((row["key"], row["url"], row.get("active", ""), pairs))
    return out.getvalue()
