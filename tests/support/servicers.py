"""What a servicer needs beside what a test is about."""

from typing import Any

NO_TRAFFIC: dict[str, Any] = dict.fromkeys(("selection", "traffic", "change_sets", "explain", "history"))
