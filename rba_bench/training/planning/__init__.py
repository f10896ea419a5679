"""What a run will take, before anything starts: memory, steps, tokens, hours, and the hardware that it fits.

    shapes     a model's numbers, from its configuration alone: no weights
    data       how long clips and answers are, from the set or assumed
    work       tokens and operations of an optimiser step
    memory     bytes on each device
    hardware   devices: memory, peak rates; and a short probe of this machine
    plan       all of it together

Parameters are counted exactly, on a model without storage. Everything else is an estimate from stated assumptions
(`Assumptions`), each of which can be given.
"""
