"""The fuzz targets, one a module: ``tests.fuzz.harness`` says what each has."""
