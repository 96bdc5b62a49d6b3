"""One file here = one command of `cgan`: its docstring is its help, define_flags its flags, main what only it needs."""
