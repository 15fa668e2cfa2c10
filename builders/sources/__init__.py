"""Where raw material comes from."""
