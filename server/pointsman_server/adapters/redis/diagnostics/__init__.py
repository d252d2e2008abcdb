"""What operators are told of Redis: why it refuses, and how it is set up."""
