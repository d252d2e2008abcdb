"""The stages that say what the server does: in logs, metrics and traces."""
