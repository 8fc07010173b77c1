"""The pages of the documentation, whose examples are run and whose outputs are kept true."""
