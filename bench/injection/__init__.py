"""Which text made the model obey? Planted instructions among documents, and who finds them (docs/injection.md)."""
