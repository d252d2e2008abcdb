"""How a client calls: requests, one call with its retries, results, errors."""
