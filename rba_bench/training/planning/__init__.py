"""What a run will take, before anything starts: memory, steps, tokens, hours, and the hardware that it fits.

    assumptions  what the estimate rests on: assumptions, lengths of clips and answers, devices
    shapes       a model's numbers, from its configuration alone: no weights
    cost         tokens, operations and bytes of an optimiser step
    plan         a recipe in, the estimate of the whole run out

Parameters are counted exactly, on a model without storage. Everything else is an estimate from stated `Assumptions`,
each of which can be set.
"""
