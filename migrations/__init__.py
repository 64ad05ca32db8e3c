"""Prepares the servers: SQL schema (Alembic), monthly tables, the log, the bucket for files."""
