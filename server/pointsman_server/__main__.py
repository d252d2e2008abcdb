"""``python -m pointsman_server`` is ``pointsman-server``."""

from pointsman_server.cli.main import main

if __name__ == "__main__":
    main()
