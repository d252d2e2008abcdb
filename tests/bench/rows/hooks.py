"""Parts that stand in modules of their own beside this package: measured where they are there.

Such a module has ``contest(rig)``, a context manager that lends a ``Contest``.
"""

import importlib
import importlib.util
from collections.abc import Mapping

from tests.bench.contests import Part

MODULES: Mapping[str, str] = {"writes": "tests.bench.writes", "bulk": "tests.bench.bulk"}


def parts(modules: Mapping[str, str] = MODULES) -> dict[str, Part]:
    """Find those that are there."""
    found = {name: module for name, module in modules.items() if importlib.util.find_spec(module)}
    return {name: _contest(module) for name, module in found.items()}


def _contest(module: str) -> Part:
    part: Part = importlib.import_module(module).contest
    return part
