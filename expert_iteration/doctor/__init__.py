"""Can this machine run this configuration? Each check is a small function that returns a `Finding`."""
