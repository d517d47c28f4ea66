"""API keys, JWTs of an issuer, scopes and principals: who may do what.

Nothing here knows how requests arrive: `serve/authorization/` reads credentials from their heads and asks this package.
"""
