"""The tests, and a small Django app (``tests``) with models for rows to belong to."""
