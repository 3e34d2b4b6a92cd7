"""The demo's commands: ``demo``, and what it runs."""
