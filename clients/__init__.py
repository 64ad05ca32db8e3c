"""Clients of the public contract. They import `schemas` and nothing else of the project."""
