"""The keys, one module per subject."""
