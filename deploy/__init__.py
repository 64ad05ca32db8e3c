"""Files of the one-host deployment, and the step that makes its secrets."""
