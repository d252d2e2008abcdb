"""The stages that say what the server does: in logs and metrics."""
