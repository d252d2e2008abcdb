"""zizmor on the workflows: ``python -m tests.support.zizmor`` (``make lint-workflows``). Offline: it asks nobody."""

import subprocess
import sys
from pathlib import Path

from tests.support.tools import provide

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Run zizmor on .github; what it says is printed where it finds something."""
    command = [str(provide("zizmor")), "--offline", "--no-progress", "--quiet", "--no-config", str(ROOT / ".github")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.stderr.write(done.stdout + done.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
