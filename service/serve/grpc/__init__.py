"""gRPC over HTTP/2: connections, calls and their messages. Imports handlers and what is below them, not http or api."""
