"""What the role xds consists of. Imported with that role alone."""
