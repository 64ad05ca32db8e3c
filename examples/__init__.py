"""Functions as a team of its own would write them; docs/functions.md builds the first of them step by step."""
