"""The shop's handlers: what Restate runs, one module per service. They know nothing of Django."""
