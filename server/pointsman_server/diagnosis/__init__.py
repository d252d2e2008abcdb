"""What ``pointsman-server doctor`` looks at, and what it makes of it. Judging is pure: facts in, findings out."""
