"""The edge: WebSocket and HTTP on one side, NATS on the other. No database, no business rule."""
