"""The public Python interface; what it offers is listed in `rba_bench.__all__` and described in `docs/api.md`.

Every function calls what the command of its kind calls, and takes the command's options under their names.
"""
