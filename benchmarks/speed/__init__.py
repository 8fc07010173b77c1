"""How the constants of the speed model come out of published measurements."""
