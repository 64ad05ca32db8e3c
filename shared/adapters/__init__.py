"""Connections to the servers: NATS, Redis, the log, SQL, S3. Handlers see them only as narrow Protocols."""
