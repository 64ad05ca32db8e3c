"""Ways to run a Function: on a NATS queue group, or over the in-memory bus in tests."""
