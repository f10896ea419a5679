"""Weights in other formats of the field, read through a conversion to a folder of safetensors that is made once."""
