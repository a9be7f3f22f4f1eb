"""A person's view of a result: what is shown, the same in terminal, pages and files."""
