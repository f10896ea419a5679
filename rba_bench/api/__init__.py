"""The public Python interface: `rba_bench.__all__` lists its names, `docs/api.md` describes them.

Every function calls the same code as the command it corresponds to, and takes the command's options under their names.
"""
