"""The client's side of Watch: what events mean, and the threads that read them."""
