"""Print answers and errors: tables, JSON documents, exit codes."""
