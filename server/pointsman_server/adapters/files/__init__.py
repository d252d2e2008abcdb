"""Files that the server reads: the policy, certificates."""
