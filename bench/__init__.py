"""Benchmarks: each one command, one table."""
