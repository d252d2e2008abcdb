"""Groups of commands of ``pointsman-server``; ``__main__`` puts them together."""
