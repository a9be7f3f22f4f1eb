"""SPEX (arXiv 2502.13870): structured masks whose small transforms are read by an error-correcting code."""
