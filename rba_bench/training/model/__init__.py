"""The model in training: policy, what of it trains, frozen models beside it, weights across processes and on disk."""
