"""Migrations of the invocations' table."""
