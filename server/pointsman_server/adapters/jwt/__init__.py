"""Bearer credentials of an issuer: JWTs (RFC 7519), verified as RFC 8725 requires, with PyJWT and the issuer's keys.

``PyJWKClient`` is not used: it fetches keys under a lock while a call waits, and refuses every call once the issuer
has been unreachable for longer than its cache lives.
"""
