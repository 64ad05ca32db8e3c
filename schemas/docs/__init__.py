"""Writers of the generated contract, one module per document.

`schemas.generate` is the entry point.
"""
