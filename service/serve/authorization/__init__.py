"""May this request be answered: credentials, the scopes of routes, and limits."""
