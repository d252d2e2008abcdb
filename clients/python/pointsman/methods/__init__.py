"""The methods of both clients, by what they are about, and how a call is made."""
