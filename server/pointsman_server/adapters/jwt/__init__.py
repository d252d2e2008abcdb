"""Bearer tokens of an issuer (JWT, RFC 7519, as RFC 8725 wants them checked), on PyJWT and its public keys.

Not on ``PyJWKClient``: that fetches while a call waits, under a lock, and refuses everybody once the issuer has been
away for longer than its cache lives.
"""
