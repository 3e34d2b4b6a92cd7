"""What fits the app into other packages, each imported only by a project that has them."""
