"""``python -m pointsman.cli`` is ``pointsman``."""

from pointsman.cli import main

main()
