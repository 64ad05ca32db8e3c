"""What edge and functions have in common: subjects, errors, settings, tokens, the function host and the adapters."""
