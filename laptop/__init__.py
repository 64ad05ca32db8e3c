"""Laptop mode: real servers, migrations, functions and edge under one supervisor (`./task dev`)."""
