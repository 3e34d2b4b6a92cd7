"""Template tags of the app's own pages."""
