"""The methods of RouteService that have a module of their own: each translates for one use case."""
