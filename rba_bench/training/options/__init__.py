"""The keys of a training recipe beside `recipe.py`: presets, nested options, checks, reasons. Nothing heavy."""
