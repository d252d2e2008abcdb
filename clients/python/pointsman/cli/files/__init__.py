"""Read files of routes: YAML, JSON lines and CSV, with the line of each problem."""
