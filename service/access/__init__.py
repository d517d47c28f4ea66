"""API keys, their file, scopes and principals: who may do what.

Nothing here knows HTTP: `serve/access/` reads credentials from requests and asks this package.
"""
