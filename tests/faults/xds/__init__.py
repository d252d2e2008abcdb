"""xDS clients of each kind among the clients, the routes that they call by, and what holds them to the history."""
