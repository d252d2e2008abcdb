"""The commands of ``pointsman-server``, a file each; ``main`` lists them."""
