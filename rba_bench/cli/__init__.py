"""The command line: thin commands that parse, call the library and render. Nothing heavy is imported up front."""
