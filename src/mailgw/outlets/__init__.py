"""Where documents go, and how we know that they are safe there."""
