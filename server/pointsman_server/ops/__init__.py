"""The HTTP door of operators: metrics and health."""
