"""The functions: one folder each, independent of one another. `python -m functions [NAME …]` runs them."""
