"""Who may do what: API keys, their file, scopes and principals.

Nothing here knows HTTP: `serve/access/` reads credentials from requests and asks this package.
"""
