"""What load processes do, one module for each way to use the server. Each is a `tests.bench.load.Load`."""
