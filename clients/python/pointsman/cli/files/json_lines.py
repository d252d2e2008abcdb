"""Read JSON lines: one object a line, strict where ``json`` is not."""

import json
from collections.abc import Iterator, Sequence
from typing import TextIO

from pointsman.cli.files.entries import RawEntry
from pointsman.cli.files.problems import Problem


class _NameTwice(ValueError):
    """An object has the same name twice: RFC 8259, section 4, leaves open which value counts."""


def read_json_lines(text: TextIO) -> Iterator[RawEntry | Problem]:
    """Read each line. ``text`` must be opened with ``newline="\\n"``: a string of JSON may hold other line ends."""
    for number, line in enumerate(text, start=1):
        if line.strip():
            yield _row(number, line.removesuffix("\n"))


def _row(number: int, line: str) -> RawEntry | Problem:
    try:
        value = _DECODER.decode(line)
        if "\\u" in line:
            # Escapes can make halves of characters, which nothing can send or write.
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        return Problem(number, "no valid JSON: nested too deeply")
    except UnicodeEncodeError:
        return Problem(number, "no valid JSON: a \\u escape stands for half a character")
    except _NameTwice as error:
        return Problem(number, str(error))
    except ValueError as error:
        return Problem(number, f"no valid JSON: {error}")
    return RawEntry(number, value) if isinstance(value, dict) else Problem(number, "must be a JSON object")


def _object(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for number, name in enumerate(names) if name in names[:number])
        raise _NameTwice(f"{twice.encode(errors='replace').decode()}: is given twice")
    return fields


def _refuse_constant(name: str) -> object:
    raise ValueError(name)


# An integer of thousands of digits is refused by int, and by float it is just a number where text belongs.
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=float, parse_constant=_refuse_constant)
