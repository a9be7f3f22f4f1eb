"""The memory: synchronous SQLAlchemy Core on SQLite or PostgreSQL. Callers own transactions."""
