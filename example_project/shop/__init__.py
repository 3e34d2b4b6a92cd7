"""The shop: an app like any other, whose views send to Restate."""
