"""Training examples, in-context examples and documents as players."""
