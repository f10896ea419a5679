"""The losses, as pure functions of tensors: they know no model, no tokenizer and no layout of a batch.

    likelihood       log-probability of answers, and the means that turn losses of tokens into one loss
    preference       pairs: sigmoid (CPO, DPO, SPIN, RBA), IPO, SimPO, ODPO, TDPO
    distillation     a teacher's distributions (forward, reverse, JSD; full or top k), DiVA's hidden states
    policy_gradient  advantages, GRPO, DAPO, RLOO, self-critical training, minimum risk

A function returns one loss for each pair, answer, token or position, not their mean: the methods know by what a whole
optimiser step is divided. Every function is called by a method.
"""
