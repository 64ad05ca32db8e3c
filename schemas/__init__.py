"""The public contract: every command, reply, event, record and error, as msgspec Structs.

Nothing here does I/O. `commands.COMMANDS` is the one table from which the edge routes, the
functions bind and `schemas.generate` writes OpenAPI, AsyncAPI and JSON Schema. Fields are only ever
added, with defaults.
"""
