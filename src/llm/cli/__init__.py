"""The command `manifold`: arguments in, exit status out, a module per command."""
