"""One module per command; each turns options into an answer."""
